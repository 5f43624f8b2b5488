// How long data frames were held: a histogram with buckets that grow by a tenth, from 0.01 ms to some minutes.

const smallestMs = 0.01;
const growth = Math.log(1.1);
const bucketCount = 192;

export class HoldTimes {
  private readonly buckets = new Float64Array(bucketCount);
  count = 0;

  /** What leaves `now` was held since `held.time`; undefined: it did not wait. */
  record(held: { readonly time: number } | undefined, now: number): void {
    const ms = held === undefined ? 0 : now - held.time;
    const bucket = ms < smallestMs ? 0 : 1 + Math.floor(Math.log(ms / smallestMs) / growth);
    const index = Math.min(bucket, bucketCount - 1);
    this.buckets[index] = (this.buckets[index] ?? 0) + 1;
    this.count += 1;
  }

  /** The hold time that a share of `quantile` of all frames did not exceed, in milliseconds. */
  quantile(quantile: number): number {
    let left = Math.ceil(this.count * quantile);
    for (let index = 0; index < bucketCount && left > 0; index += 1) {
      left -= this.buckets[index] ?? 0;
      if (left <= 0) return index === 0 ? 0 : smallestMs * Math.exp(growth * index);
    }
    return 0;
  }
}
