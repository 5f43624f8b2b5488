// The secondary's RAM and its shadow: what a checkpoint is applied to.
//
//    ram     the file that the SVM runs in; the SVM writes to it
//    shadow  the primary's RAM as of the last applied checkpoint; only this file writes to it
//
//    rollback(own dirty)    shadow ─► ram     what the SVM wrote itself is gone: ram == shadow
//    write(checkpoint)      pages ─► shadow and ram
//    restoreAfterLoad(...)  shadow ─► ram     what loading the device state wrote (the reset puts ROM images back)
//
// All of it only while the SVM stands still. Everything was checked by staging; from `write` on there is no way back,
// only forward, so nothing here refuses: a failure stops the process.

import { assert } from '../base/assert.ts';
import { during } from '../base/loop-watch.ts';
import { type PageRuns, pageSize } from '../base/page-runs.ts';
import { writeSliceBytes } from './limits.ts';
import type { StagedCheckpoint } from './staged.ts';

export class SecondaryRam {
  readonly ram: Buffer;
  readonly shadow: Buffer;

  constructor(ram: Buffer, shadow: Buffer) {
    assert(ram.length === shadow.length, 'the shadow is as large as RAM');
    assert(ram.length % pageSize === 0, 'RAM is a number of whole pages');
    this.ram = ram;
    this.shadow = shadow;
  }

  /** Takes back what the SVM wrote itself; returns how many pages that were. */
  rollback(ownDirty: PageRuns): number {
    during('apply', () => this.restore(ownDirty));
    return ownDirty.pages;
  }

  /** Writes a checkpoint's pages. Everything else gets a `turn` now and then, so that beats are echoed. */
  async write(staged: StagedCheckpoint, turn: () => Promise<void>): Promise<void> {
    let sinceTurn = 0;
    for await (const batch of staged.batches()) {
      during('apply', () => this.writeBatch(batch.runs, batch.contents));
      sinceTurn += batch.contents.length;
      if (sinceTurn < writeSliceBytes) continue;
      sinceTurn = 0;
      await turn();
    }
  }

  /** Writes one batch: of a checkpoint, or of a round of the initial copying. */
  writeBatch(runs: PageRuns, contents: Uint8Array): void {
    assert(contents.length === runs.bytes, 'the contents are those of the runs');
    this.checkBounds(runs);
    let at = 0;
    runs.forEach((start, end) => {
      const pages = contents.subarray(at, at + end - start);
      this.shadow.set(pages, start);
      this.ram.set(pages, start);
      at += pages.length;
    });
  }

  /** Puts back what loading the device state wrote to RAM; returns how many pages that were. */
  restoreAfterLoad(dirtyAfterLoad: PageRuns): number {
    during('apply', () => this.restore(dirtyAfterLoad));
    return dirtyAfterLoad.pages;
  }

  /**
   * Compares all of RAM: with the shadow, and with the primary's hash when there is one. For --verify: O(RAM), so that
   * everything else gets a `turn` now and then, and beats are echoed.
   */
  async verify(
    expectedHash: string,
    hash: (bytes: Buffer) => string,
    turn: () => Promise<void>,
  ): Promise<{ equalToShadow: boolean; equalToPrimary: boolean | null }> {
    let equalToShadow = true;
    for (let at = 0; at < this.ram.length && equalToShadow; at += writeSliceBytes) {
      const end = Math.min(this.ram.length, at + writeSliceBytes);
      equalToShadow = this.ram.compare(this.shadow, at, end, at, end) === 0;
      await turn();
    }
    const equalToPrimary = expectedHash === '' ? null : hash(this.ram) === expectedHash;
    await turn();
    return { equalToShadow, equalToPrimary };
  }

  private restore(runs: PageRuns): void {
    this.checkBounds(runs);
    runs.forEach((start, end) => void this.shadow.copy(this.ram, start, start, end));
  }

  private checkBounds(runs: PageRuns): void {
    assert((runs.bounds.at(-1) ?? 0) <= this.ram.length, 'pages lie within RAM');
  }
}
