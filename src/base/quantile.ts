// Quantiles of what was measured, by nearest rank: a quantile is always one of the values, never between two of them.

/** The smallest of `ascending` that at least this share of them does not exceed; 0 of none. */
export function quantile(ascending: readonly number[], share: number): number {
  return ascending[Math.max(0, Math.ceil(share * ascending.length) - 1)] ?? 0;
}

/** The values may be in any order; of an even number it is the lower one of the two in the middle. */
export function median(values: readonly number[]): number {
  return quantile(
    values.toSorted((left, right) => left - right),
    0.5,
  );
}
