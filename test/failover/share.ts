// Of measured values, for tables.

/** The value below which this share of them lies, rounded; 0 of none. */
export function share(values: readonly number[], part: number): number {
  const sorted = values.toSorted((left, right) => left - right);
  return Math.round(sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? 0);
}
