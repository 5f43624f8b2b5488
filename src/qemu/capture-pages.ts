// The pages of one capture: those that were copied while the guest still ran, and those that it wrote since.
//
//    guest runs                          guest stands                    guest runs
//    list ─► re-arm and copy, 512 runs   re-arm the rest ─► copy         merge
//            at a time, the event loop   (few: what was written since)   late pages over and between
//            between them                                                the early ones
//
// Why: re-arming costs 2 us a run under KVM (dirty/userfaultfd.ts) and copying 0.3 us a page, and the guest stood still
// for both. What it writes again meanwhile is late and copied twice, so this is done from earlyPagesMin pages on.
//
// Every page is right: an early page was copied after it was re-armed, so a later write of it makes it a late one.
//
//    buffer   | early pages, in order ........ | free ............ | late pages |
//    merged   | all pages, in order ........................ |
//
// Merging goes from the end to the beginning: a page only ever moves backwards, over free room or pages that have moved
// already. Where there is no room for that, everything is copied from RAM during the pause, which is slower and as
// right.

import { assert } from '../base/assert.ts';
import { PageRuns } from '../base/page-runs.ts';
import type { CapturePool } from './capture-pool.ts';
import type { DirtyTracker } from './dirty/tracker.ts';
import { unionRuns } from './dirty/union.ts';
import { capturePagesBytesFirst, earlyBytesAtOnce, earlyPagesMin, earlyRunsAtOnce } from './limits.ts';

export interface CapturePagesParts {
  ram: Buffer;
  tracker: DirtyTracker;
  pool: CapturePool;
  /** Lets the event loop do other work. */
  turn: () => Promise<void>;
}

export class CapturePages {
  readonly #parts: CapturePagesParts;
  #buffer: Buffer | undefined;
  readonly #early = new PageRuns();
  #late = new PageRuns();
  #runs = new PageRuns();
  /** Where the late pages lie until they are merged; undefined: everything lies where it belongs. */
  #lateAt: number | undefined;

  constructor(parts: CapturePagesParts) {
    this.#parts = parts;
  }

  /**
   * While the guest runs: makes room for what is written, so that the pause touches no memory for the first time (some
   * 3 ms for 1 MiB on a virtual host), and copies it when it is much. Comparing is as slow as the scan itself: there
   * the pause may make the room.
   */
  async prepare(): Promise<void> {
    const { tracker, pool, ram } = this.#parts;
    const listed = tracker.kind === 'compare' ? new PageRuns() : tracker.list();
    const withRoom = Math.max(capturePagesBytesFirst, Math.ceil(listed.bytes * 1.25));
    await pool.reserve(Math.min(withRoom, ram.length));
    if (listed.pages < earlyPagesMin) return;
    this.#buffer = pool.take(listed.bytes);
    for (const part of partsOf(listed)) {
      if (!this.#copyEarly(part, this.#buffer)) return;
      await this.#parts.turn();
    }
  }

  /** False: the rest is for the pause. */
  #copyEarly(part: PageRuns, buffer: Buffer): boolean {
    const { tracker, ram } = this.#parts;
    const at = this.#early.bytes;
    if (at + part.bytes > buffer.length) return false;
    const collected = tracker.collectListed(part);
    if (collected === undefined) return false;
    collected.forEach((start, end) => this.#early.add(start, end));
    // More than was listed, and no room for it: everything is copied in the pause then.
    if (this.#early.bytes > buffer.length) return false;
    copyRuns(ram, collected, buffer.subarray(at));
    return true;
  }

  /** The guest stands still: re-arms what was written since, and returns all pages of this capture. */
  collect(): PageRuns {
    this.#late = this.#parts.tracker.collect();
    this.#runs = unionRuns(this.#early, this.#late);
    return this.#runs;
  }

  /** The guest stands still: copies what is not copied yet. */
  copy(): void {
    const { ram, pool } = this.#parts;
    const { bytes } = this.#runs;
    const kept = this.#buffer;
    const copied = this.#early.runs > 0 && this.#early.bytes <= (kept?.length ?? 0);
    if (kept !== undefined && copied && bytes + this.#late.bytes <= kept.length) {
      this.#lateAt = kept.length - this.#late.bytes;
      copyRuns(ram, this.#late, kept.subarray(this.#lateAt));
      return;
    }
    if (kept !== undefined && kept.length < bytes) this.#giveBack();
    this.#buffer ??= pool.take(bytes);
    copyRuns(ram, this.#runs, this.#buffer);
  }

  /** Puts every page where it belongs. The guest may run. */
  merge(): { runs: PageRuns; pages: Buffer; release: () => void } {
    const buffer = this.#buffer;
    assert(buffer !== undefined, 'pages are copied before they are merged');
    if (this.#lateAt !== undefined) mergePages(buffer, { early: this.#early, late: this.#late, lateAt: this.#lateAt });
    this.#lateAt = undefined;
    return { runs: this.#runs, pages: buffer.subarray(0, this.#runs.bytes), release: () => this.#giveBack() };
  }

  /** Every page of it counts as written again. */
  abandon(): void {
    this.#parts.tracker.putBack(unionRuns(this.#early, this.#late));
    this.#giveBack();
  }

  #giveBack(): void {
    if (this.#buffer !== undefined) this.#parts.pool.give(this.#buffer);
    this.#buffer = undefined;
  }
}

/** The same pages in lists that are worked off in a few milliseconds each. */
export function* partsOf(listed: PageRuns): Generator<PageRuns> {
  let part = new PageRuns();
  let bytes = 0;
  const { bounds } = listed;
  for (let at = 0; at < bounds.length; at += 2) {
    const end = bounds[at + 1] ?? 0;
    for (let start = bounds[at] ?? 0; start < end; ) {
      const to = Math.min(end, start + earlyBytesAtOnce - bytes);
      part.add(start, to);
      bytes += to - start;
      start = to;
      if (bytes < earlyBytesAtOnce && part.runs < earlyRunsAtOnce) continue;
      yield part;
      part = new PageRuns();
      bytes = 0;
    }
  }
  if (bytes > 0) yield part;
}

/**
 * Brings the pages of `early`, one after the other at the beginning of the buffer, and those of `late`, which lie at
 * `lateAt`, into their common order; a page of both is the late one. From the end to the beginning.
 */
export function mergePages(buffer: Buffer, parts: { early: PageRuns; late: PageRuns; lateAt: number }): void {
  const early = parts.early.bounds;
  const late = parts.late.bounds;
  let to = unionRuns(parts.early, parts.late).bytes;
  let run = early.length - 2;
  let runEnd = parts.early.end;
  let from = parts.early.bytes;
  /** Moves the early pages from `floor` on that are left, or skips them. */
  const earlyDownTo = (floor: number, keep: boolean) => {
    while (run >= 0 && runEnd > floor) {
      const runStart = early[run] ?? 0;
      const start = Math.max(runStart, floor);
      from -= runEnd - start;
      if (keep) to -= runEnd - start;
      if (keep && to !== from) buffer.copyWithin(to, from, from + runEnd - start);
      runEnd = start;
      if (start > runStart) return;
      run -= 2;
      runEnd = early[run + 1] ?? 0;
    }
  };
  let lateFrom = parts.lateAt + parts.late.bytes;
  for (let at = late.length - 2; at >= 0; at -= 2) {
    const [start = 0, end = 0] = [late[at], late[at + 1]];
    earlyDownTo(end, true);
    earlyDownTo(start, false);
    to -= end - start;
    lateFrom -= end - start;
    buffer.copyWithin(to, lateFrom, lateFrom + end - start);
  }
  earlyDownTo(0, true);
  assert(to === 0 && from === 0, 'all pages were merged');
}

/** Copies the pages of `runs` out of guest RAM, one after the other. */
export function copyRuns(ram: Buffer, runs: PageRuns, target: Buffer): void {
  const { bounds } = runs;
  let written = 0;
  for (let at = 0; at < bounds.length; at += 2) {
    written += ram.copy(target, written, bounds[at] ?? 0, bounds[at + 1] ?? 0);
  }
}
