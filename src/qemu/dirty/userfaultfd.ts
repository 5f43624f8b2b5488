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
// How far a call has come: the kernel hands regions over by 512, and `walk_end` is where it last had no room for
// another (seen on Linux 6.18), so a call that found more than 512 regions and reached the end may say that it stopped
// in the middle. What lies before the end of its last region was walked, whatever `walk_end` says, and is not walked
// again: a guest that runs may have written pages of it, which belong into the next answer, and would be named here a
// second time.
//
// Under KVM the kernel tells KVM of a walk that protects, for its whole range, and KVM drops the guest's page tables of
// it: the guest then finds every page anew, some 4 us each (64 MiB: 50 to 80 ms). So there (`gently`) pages are listed
// first, which tells nobody, and then the listed runs alone are protected, one call each (2 us). The guest may run
// meanwhile:
//
//   page was written before it was listed     listed, protected, and copied after that: its contents are of that moment
//                                             or later
//   page was first written after the listing  not listed, not protected: it is in the next list
//   page was written again after it was protected   noted as ever: in this list and in the next one
//
// because a call that protects without listing is only ever given pages that were listed. Where a stretch of 2 MiB has
// many runs of them, one call lists and protects all that was written there, at once: that costs the guest this
// stretch's tables alone.
//
// A kernel without the call, or a range that is not registered, is an error of the first scan: that is the probe.
// Limits: x86-64 addresses are below 2^47, exact in a double.

import { closeSync, openSync } from 'node:fs';
import { ColoError, errorCodes } from '../../base/errors.ts';
import { PageRuns } from '../../base/page-runs.ts';
import { addressOf, ioctl } from '../libc.ts';
import { gentleRunsMax } from './limits.ts';
import type { PageScanner } from './tracker.ts';

// _IOWR('f', 16, struct pm_scan_arg)
const pagemapScan = 0xc060_6610;
const scanArgumentBytes = 96n;
const writeProtectMatching = 1n;
const onlyAsyncTracked = 2n;
const pageIsWritten = 2n;
const wordsPerRegion = 6;
/** What one page of page tables covers. */
const blockBytes = 2 * 1024 * 1024;
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

  readonly #gently: boolean;

  constructor(target: { pid: number; ramAddress: number; ramBytes: number; gently: boolean }) {
    this.#gently = target.gently;
    this.#fd = openSync(`/proc/${target.pid}/pagemap`, 'r');
    this.#ramStart = target.ramAddress;
    this.#ramBytes = target.ramBytes;
  }

  scan({ rearm }: { rearm: boolean }): PageRuns {
    if (rearm && this.#gently) return this.rearm(this.scan({ rearm: false }));
    const runs = new PageRuns();
    this.#scanRange(runs, { start: 0, end: this.#ramBytes, rearm });
    return runs;
  }

  rearm(listed: PageRuns): PageRuns {
    const runs = new PageRuns();
    if (listed.runs === 0) return runs;
    const { bounds } = listed;
    if (!this.#gently) this.#scanRange(runs, { start: bounds[0] ?? 0, end: listed.end, rearm: true });
    else for (let at = 0; at < bounds.length; ) at = this.#rearmBlock(runs, bounds, at);
    return runs;
  }

  /** The runs that begin in the same block as the one at `from`; returns where the next block's are. */
  #rearmBlock(runs: PageRuns, bounds: readonly number[], from: number): number {
    const block = Math.floor((bounds[from] ?? 0) / blockBytes);
    let to = from;
    while (to < bounds.length && Math.floor((bounds[to] ?? 0) / blockBytes) === block) to += 2;
    if ((to - from) / 2 > gentleRunsMax) {
      this.#scanRange(runs, { start: bounds[from] ?? 0, end: bounds[to - 1] ?? 0, rearm: true });
      return to;
    }
    for (let at = from; at < to; at += 2) {
      const [start = 0, end = 0] = [bounds[at], bounds[at + 1]];
      this.#protect(start, end);
      runs.add(start, end);
    }
    return to;
  }

  #scanRange(runs: PageRuns, range: { start: number; end: number; rearm: boolean }): void {
    const end = this.#ramStart + range.end;
    for (let at = this.#ramStart + range.start; at < end; ) {
      const found = this.#walk(at, end, range.rearm);
      this.#append(runs, found);
      const reached = this.#reached(found);
      // Never a part of the answer: what was not walked would count as not written.
      if (reached <= at)
        throw new ColoError(errorCodes.checkpoint, "The kernel's walk over QEMU's pages does not go on.");
      at = reached;
    }
  }

  close(): void {
    closeSync(this.#fd);
  }

  /** Lists what was written in a range; `rearm`: and protects exactly that again. Returns the number of regions. */
  #walk(start: number, end: number, rearm: boolean): number {
    const argument = this.#argument.fill(0n);
    argument[field.size] = scanArgumentBytes;
    argument[field.flags] = onlyAsyncTracked | (rearm ? writeProtectMatching : 0n);
    argument[field.vector] = this.#vector;
    argument[field.length] = BigInt(regionsPerCall);
    argument[field.categories] = pageIsWritten;
    argument[field.returned] = pageIsWritten;
    return this.#call(start, end);
  }

  /** Protects a range and lists nothing: only for pages that were listed. */
  #protect(start: number, end: number): void {
    const argument = this.#argument;
    argument[field.flags] = onlyAsyncTracked | writeProtectMatching;
    argument[field.walkEnd] = argument[field.vector] = argument[field.length] = argument[field.returned] = 0n;
    this.#call(this.#ramStart + start, this.#ramStart + end);
    if (Number(argument[field.walkEnd]) >= this.#ramStart + end) return;
    throw new ColoError(errorCodes.checkpoint, "The kernel did not protect all of QEMU's written pages.");
  }

  #call(start: number, end: number): number {
    this.#argument[field.start] = BigInt(start);
    this.#argument[field.end] = BigInt(end);
    const found = ioctl(this.#fd, pagemapScan, this.#argument);
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
