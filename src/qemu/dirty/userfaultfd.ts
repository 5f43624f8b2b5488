// Written pages by asynchronous write protection: ioctl(PAGEMAP_SCAN) on /proc/PID/pagemap, Linux 6.7 and later.
//
// The preload library (native/preload.c) registered guest RAM inside QEMU. One call walks the page tables, lists the
// pages that are not write-protected, and protects them again; the first write to a protected page clears the
// protection inside the kernel (1-2 us, no signal, no other process). Our own mapping of the RAM file has its own page
// tables: what we write is never reported.
//
// struct pm_scan_arg, 12 x u64:
//   0 size  1 flags  2 start  3 end  4 walk_end (out)  5 vec  6 vec_len  7 max_pages
//   8 category_inverted  9 category_mask  10 category_anyof_mask  11 return_mask
// struct page_region, 3 x u64: start, end, categories
//
// How far a call has come: the kernel hands regions over by 512, and `walk_end` is where it last had no room for another
// (seen on Linux 6.18), so a call that found more than 512 regions and reached the end may say that it stopped in the
// middle. What lies before the end of its last region was walked, whatever `walk_end` says, and is not walked again: a guest
// that runs may have written pages of it, which belong into the next answer, and would be named here a second time.
//
// A kernel without the call, or a range that is not registered, is an error of the first scan: that is the probe.
// Limits: x86-64 addresses are below 2^47, exact in a double.

import { closeSync, openSync } from 'node:fs';
import { ColoError, errorCodes } from '../../base/errors.ts';
import { PageRuns } from '../../base/page-runs.ts';
import { addressOf, ioctl } from '../libc.ts';
import type { PageScanner } from './tracker.ts';

// _IOWR('f', 16, struct pm_scan_arg)
const pagemapScan = 0xc060_6610;
const scanArgumentBytes = 96n;
const writeProtectMatching = 1n;
const onlyAsyncTracked = 2n;
const pageIsWritten = 2n;
const wordsPerRegion = 6;
const noSuchProcess = 3;
const two32 = 2 ** 32;

/** Regions a call may return; a walk that finds more goes on where it stopped. */
const regionsPerCall = 8192;

const field = { size: 0, flags: 1, start: 2, end: 3, walkEnd: 4, vector: 5, length: 6, categories: 9, returned: 11 };

export class UserfaultfdScanner implements PageScanner {
  readonly kind = 'userfaultfd';
  readonly #fd: number;
  readonly #ramStart: number;
  readonly #ramBytes: number;
  readonly #argument = new BigUint64Array(12);
  readonly #regions = new BigUint64Array(3 * regionsPerCall);
  readonly #words = new Uint32Array(this.#regions.buffer);
  readonly #vector = addressOf(this.#regions);

  constructor(target: { pid: number; ramAddress: number; ramBytes: number }) {
    this.#fd = openSync(`/proc/${target.pid}/pagemap`, 'r');
    this.#ramStart = target.ramAddress;
    this.#ramBytes = target.ramBytes;
  }

  scan(options: { rearm: boolean }): PageRuns {
    const runs = new PageRuns();
    const end = this.#ramStart + this.#ramBytes;
    for (let at = this.#ramStart; at < end; ) {
      const found = this.#walk(at, end, options.rearm);
      this.#append(runs, found);
      const reached = this.#reached(found);
      // Never a part of the answer: what was not walked would count as not written.
      if (reached <= at)
        throw new ColoError(errorCodes.checkpoint, "The kernel's walk over QEMU's pages does not go on.");
      at = reached;
    }
    return runs;
  }

  close(): void {
    closeSync(this.#fd);
  }

  #walk(start: number, end: number, rearm: boolean): number {
    const argument = this.#argument.fill(0n);
    argument[field.size] = scanArgumentBytes;
    argument[field.flags] = onlyAsyncTracked | (rearm ? writeProtectMatching : 0n);
    argument[field.start] = BigInt(start);
    argument[field.end] = BigInt(end);
    argument[field.vector] = this.#vector;
    argument[field.length] = BigInt(regionsPerCall);
    argument[field.categories] = pageIsWritten;
    argument[field.returned] = pageIsWritten;
    const found = ioctl(this.#fd, pagemapScan, argument);
    if (found >= 0) return found;
    if (found === -noSuchProcess) throw new ColoError(errorCodes.qemu, 'QEMU is gone.');
    throw new ColoError(errorCodes.checkpoint, `The kernel cannot list QEMU's written pages (errno ${-found}).`, {
      hint: 'Linux 6.7 or later is needed, and the preload library must have registered guest RAM.',
    });
  }

  #reached(found: number): number {
    const last = (found - 1) * wordsPerRegion;
    const lastEnd = found === 0 ? 0 : (this.#words[last + 3] ?? 0) * two32 + (this.#words[last + 2] ?? 0);
    return Math.max(lastEnd, Number(this.#argument[field.walkEnd] ?? 0n));
  }

  // Ten thousand regions are ordinary: read as pairs of 32-bit words, without a bigint for each.
  #append(runs: PageRuns, count: number): void {
    const words = this.#words;
    const base = this.#ramStart;
    for (let at = 0; at < count * wordsPerRegion; at += wordsPerRegion) {
      const start = (words[at + 1] ?? 0) * two32 + (words[at] ?? 0) - base;
      const end = (words[at + 3] ?? 0) * two32 + (words[at + 2] ?? 0) - base;
      runs.add(start, end);
    }
  }
}
