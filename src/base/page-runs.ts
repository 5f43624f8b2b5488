// A set of guest pages as runs of byte offsets into the RAM file: [start, end), ascending, not touching. One flat
// array, because a checkpoint may name ten thousand of them and must not allocate an object for each.
//
// The order is asserted where a list is made, here, and nothing else can write one: a list out of order names pages
// twice, a peer refuses it, and a union of two of them can lose a page in silence. Who reads runs from outside (the
// kernel, a peer) checks them before they are added.

import { assert } from './assert.ts';

/** Bytes of a guest page, on every machine COLO supports. */
export const pageSize = 4096;

export class PageRuns {
  /** start0, end0, start1, end1, ...: bytes, multiples of pageSize. */
  readonly #bounds: number[] = [];

  get bounds(): readonly number[] {
    return this.#bounds;
  }

  /** Where the last run ends; 0 without any. */
  get end(): number {
    return this.#bounds[this.#bounds.length - 1] ?? 0;
  }

  /**
   * Adds [start, end), which is not empty and begins at the end of the last run or behind it; joins them when they
   * touch.
   */
  add(start: number, end: number): void {
    const last = this.end;
    assert(start >= last && start < end, 'runs of pages are not empty, and ascend');
    const bounds = this.#bounds;
    if (last === start && bounds.length > 0) bounds[bounds.length - 1] = end;
    else bounds.push(start, end);
  }

  clear(): void {
    this.#bounds.length = 0;
  }

  get runs(): number {
    return this.bounds.length / 2;
  }

  get bytes(): number {
    let sum = 0;
    for (let at = 0; at < this.bounds.length; at += 2) sum += (this.bounds[at + 1] ?? 0) - (this.bounds[at] ?? 0);
    return sum;
  }

  get pages(): number {
    return this.bytes / pageSize;
  }

  forEach(visit: (start: number, end: number) => void): void {
    for (let at = 0; at < this.bounds.length; at += 2) visit(this.bounds[at] ?? 0, this.bounds[at + 1] ?? 0);
  }
}

/** Whether every page of `runs` is one of `all`. */
export function isWithin(runs: PageRuns, all: PageRuns): boolean {
  const outer = all.bounds;
  let at = 0;
  let within = true;
  runs.forEach((start, end) => {
    while (at < outer.length && (outer[at + 1] ?? 0) <= start) at += 2;
    within &&= at < outer.length && (outer[at] ?? 0) <= start && end <= (outer[at + 1] ?? 0);
  });
  return within;
}
