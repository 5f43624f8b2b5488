// Which pages of guest RAM were written since the last time somebody asked.
//
//   vm.capture, apply --> RunTracker --> PageScanner: userfaultfd | soft-dirty | compare
//                         |  first collect: every page
//                         |  putBack: pages of an abandoned checkpoint count as written again
//
// A scanner may report a page that was not written; it must never miss one. The order of preference is the order of
// cost: userfaultfd finds 4,000 of 65,536 pages in 0.3 ms, soft-dirty reads 8 bytes for every page of RAM, compare
// reads all of RAM twice and holds another copy of it.
//
// Which one works is found out by trying it on this very QEMU (choose.ts), not from version numbers.

import { PageRuns } from '../../base/page-runs.ts';
import { unionRuns } from './union.ts';

export const trackerKinds = ['userfaultfd', 'soft-dirty', 'compare'] as const;
export type TrackerKind = (typeof trackerKinds)[number];

export interface DirtyTracker {
  readonly kind: TrackerKind;
  /**
   * What collected pages are to be sent from while the guest runs; undefined: from RAM. A tracker that tells by content
   * sees only what differs from this.
   */
  readonly copy?: Buffer | undefined;
  /** Whether the guest must stand still for a collect: what it wrote in the middle of one would be in none. */
  readonly mustStand: boolean;
  /** Pages written since the last collect, which are tracked anew from here on. The first collect: every page. */
  collect(): PageRuns;
  /** The pages that collect() would return now. Changes nothing. */
  list(): PageRuns;
  /** Their number. */
  count(): number;
  /**
   * Collects some pages of a list, while the guest runs: those, and perhaps others that were written, are tracked anew
   * from here on and returned. Undefined: this tracker cannot, or pages were put back; then collect() alone is right.
   */
  collectListed(listed: PageRuns): PageRuns | undefined;
  /** These pages count as written again, beside those written since: a checkpoint that had them was abandoned. */
  putBack(runs: PageRuns): void;
  close(): void;
}

/** What the three ways differ in. */
export interface PageScanner {
  readonly kind: TrackerKind;
  readonly copy?: Buffer;
  /** Its re-arming scan first looks and then re-arms: a page written in between is missed, so that nobody may write. */
  readonly mustStand?: true | undefined;
  /** Pages written since the last re-arming scan. */
  scan(options: { rearm: boolean }): PageRuns;
  /** Re-arms listed pages while the guest may write; returns what it re-armed, at least these. */
  rearm?(listed: PageRuns): PageRuns;
  close(): void;
}

export class RunTracker implements DirtyTracker {
  readonly #scanner: PageScanner;
  readonly #ramBytes: number;
  /** Pages to report beside the scanner's next answer. At first all of them. */
  #owed = new PageRuns();
  #closed = false;

  constructor(scanner: PageScanner, ramBytes: number) {
    this.#scanner = scanner;
    this.#ramBytes = ramBytes;
    this.#oweAll();
  }

  get kind(): TrackerKind {
    return this.#scanner.kind;
  }

  get copy(): Buffer | undefined {
    return this.#scanner.copy;
  }

  get mustStand(): boolean {
    return this.#scanner.mustStand === true;
  }

  collect(): PageRuns {
    const owed = this.#owed;
    return unionRuns(
      owed,
      this.#unlessItFails(() => this.#scanner.scan({ rearm: true })),
    );
  }

  collectListed(listed: PageRuns): PageRuns | undefined {
    if (this.#scanner.rearm === undefined || this.#owed.runs > 0) return undefined;
    return this.#unlessItFails(() => this.#scanner.rearm?.(listed));
  }

  /** A scan that fails has re-armed pages that it will not report again; one that succeeds leaves none owed. */
  #unlessItFails<Result>(rearming: () => Result): Result {
    this.#oweAll();
    const result = rearming();
    this.#owed = new PageRuns();
    return result;
  }

  #oweAll(): void {
    this.#owed = new PageRuns();
    this.#owed.add(0, this.#ramBytes);
  }

  list(): PageRuns {
    return unionRuns(this.#owed, this.#scanner.scan({ rearm: false }));
  }

  count(): number {
    return this.list().pages;
  }

  putBack(runs: PageRuns): void {
    this.#owed = unionRuns(this.#owed, runs);
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#scanner.close();
  }
}
