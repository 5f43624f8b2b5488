// A set of guest pages as runs of byte offsets into the RAM file: [start, end), ascending, not touching. One flat
// array, because a checkpoint may name ten thousand of them and must not allocate an object for each.

/** Bytes of a guest page, on every machine COLO supports. */
export const pageSize = 4096;

export class PageRuns {
  /** start0, end0, start1, end1, ...: bytes, multiples of pageSize. */
  readonly bounds: number[] = [];

  /** Adds [start, end); joins it to the last run when it touches it. Runs come in ascending order. */
  add(start: number, end: number): void {
    const bounds = this.bounds;
    if (bounds.length > 0 && bounds[bounds.length - 1] === start) bounds[bounds.length - 1] = end;
    else bounds.push(start, end);
  }

  clear(): void {
    this.bounds.length = 0;
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
