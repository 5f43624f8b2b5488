// Quantiles of what was measured, by nearest rank: a quantile is always one of the values, never between two of them.

/** The smallest of `ascending` that at least this share of them does not exceed; 0 of none. */
export function quantile(ascending: readonly number[], share: number): number {
  return ascending[Math.max(0, Math.ceil(share * ascending.length) - 1)] ?? 0;
}
