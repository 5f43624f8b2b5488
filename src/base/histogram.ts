// How often a figure lay where, since the beginning: what metrics are made of, and cannot be made again from
// percentiles.

/** Upper bounds in seconds, of what a checkpoint costs; the last counts everything. */
export const secondsBounds = [0.001, 0.002, 0.003, 0.005, 0.008, 0.01, 0.025, 0.05, 0.1, 0.25, 1] as const;

export interface HistogramCounts {
  /** For each bound the figures that are not above it, then all of them. */
  buckets: number[];
  sum: number;
}

export class Histogram {
  private readonly bounds: readonly number[];
  private readonly counts: number[];
  private sum = 0;

  constructor(bounds: readonly number[] = secondsBounds) {
    this.bounds = bounds;
    this.counts = Array<number>(bounds.length + 1).fill(0);
  }

  add(value: number): void {
    const found = this.bounds.findIndex((bound) => value <= bound);
    const at = found < 0 ? this.bounds.length : found;
    this.counts[at] = (this.counts[at] ?? 0) + 1;
    this.sum += value;
  }

  get snapshot(): HistogramCounts {
    let below = 0;
    return { buckets: this.counts.map((count) => (below += count)), sum: this.sum };
  }
}
