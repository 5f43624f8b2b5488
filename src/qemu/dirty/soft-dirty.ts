// Written pages by the kernel's soft-dirty bit: write 4 to /proc/PID/clear_refs, later read bit 55 of every page's
// word in /proc/PID/pagemap. Needs CONFIG_MEM_SOFT_DIRTY, no preload library.
//
// pagemap word: bit 63 page present | bit 55 soft-dirty | ... (kernel Documentation/admin-guide/mm/pagemap.rst)
//
// The bit lives in the page table entry, and a shared page that is swapped out loses its entry: a page that was
// written, swapped out and read back in one epoch would be missed. So a page without an entry counts as written, and a
// host with swap is refused: without swap pages of a tmpfs are not reclaimed. Reading and clearing are two calls, so
// that the guest has to stand still for both (`mustStand` of PageScanner): what it wrote between them would be cleared
// and never seen. Limits: reads 8 bytes for each page of RAM (2 MB for 1 GB), and clearing touches all of QEMU's
// memory. Not measured: the kernel of the machines this was written on has no soft-dirty bit.

import { closeSync, openSync, readFileSync, readSync, writeSync } from 'node:fs';
import { ColoError, errorCodes } from '../../base/errors.ts';
import { PageRuns, pageSize } from '../../base/page-runs.ts';
import type { PageScanner } from './tracker.ts';

const entryBytes = 8;
const presentHigh = 0x8000_0000;
const softDirtyHigh = 1 << (55 - 32);
const clearSoftDirty = '4';
const chunkPages = 65_536;

/** Adds the written pages of `entries` (pairs of 32-bit words, low first), the first of which is page `firstPage`. */
export function addSoftDirty(runs: PageRuns, entries: Uint32Array, firstPage: number): void {
  let runStart = -1;
  const pages = entries.length / 2;
  for (let page = 0; page < pages; page++) {
    const high = entries[2 * page + 1] ?? 0;
    const written = (high & softDirtyHigh) !== 0 || (high & presentHigh) === 0;
    if (written && runStart < 0) runStart = page;
    if (written || runStart < 0) continue;
    runs.add((firstPage + runStart) * pageSize, (firstPage + page) * pageSize);
    runStart = -1;
  }
  if (runStart >= 0) runs.add((firstPage + runStart) * pageSize, (firstPage + pages) * pageSize);
}

/** Swap files in use: the first line of /proc/swaps is a heading. */
export function hostHasSwap(swaps = readFileSync('/proc/swaps', 'utf8')): boolean {
  return swaps.trim().split('\n').length > 1;
}

export class SoftDirtyScanner implements PageScanner {
  readonly kind = 'soft-dirty';
  readonly mustStand = true;
  readonly #pagemap: number;
  readonly #clearRefs: number;
  readonly #firstEntry: number;
  readonly #pages: number;
  readonly #chunk = new Uint32Array(2 * chunkPages);
  readonly #bytes = Buffer.from(this.#chunk.buffer);

  constructor(target: { pid: number; ramAddress: number; ramBytes: number }) {
    this.#pagemap = openSync(`/proc/${target.pid}/pagemap`, 'r');
    this.#clearRefs = openSync(`/proc/${target.pid}/clear_refs`, 'w');
    this.#firstEntry = target.ramAddress / pageSize;
    this.#pages = target.ramBytes / pageSize;
  }

  scan(options: { rearm: boolean }): PageRuns {
    const runs = new PageRuns();
    for (let page = 0; page < this.#pages; page += chunkPages) {
      const wanted = Math.min(chunkPages, this.#pages - page) * entryBytes;
      const read = readSync(this.#pagemap, this.#bytes, 0, wanted, (this.#firstEntry + page) * entryBytes);
      if (read !== wanted) throw new ColoError(errorCodes.checkpoint, "QEMU's page map cannot be read.");
      addSoftDirty(runs, this.#chunk.subarray(0, wanted / 4), page);
    }
    if (options.rearm) writeSync(this.#clearRefs, clearSoftDirty);
    return runs;
  }

  close(): void {
    closeSync(this.#pagemap);
    closeSync(this.#clearRefs);
  }
}
