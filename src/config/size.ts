// Sizes and durations as people write them in a spec: "256M", "1G"; "25ms", "10s". A bare number is refused, because
// nobody can see its unit.

import { z } from 'zod';

const sizeUnits: Record<string, number> = { K: 1024, M: 1024 ** 2, G: 1024 ** 3 };
const durationUnits: Record<string, number> = { ms: 1, s: 1000, m: 60_000 };

/** Bytes from "64M"; undefined when it is not a size. */
export function parseSize(text: string): number | undefined {
  const match = /^(\d+)\s*([KMG])(?:i?B)?$/.exec(text.trim());
  const unit = sizeUnits[match?.[2] ?? ''];
  return match === null || unit === undefined ? undefined : Number(match[1]) * unit;
}

/** Milliseconds from "25ms", "10s" or "2m"; undefined when it is not a duration. */
export function parseDuration(text: string): number | undefined {
  const match = /^(\d+(?:\.\d+)?)\s*(ms|s|m)$/.exec(text.trim());
  const unit = durationUnits[match?.[2] ?? ''];
  return match === null || unit === undefined ? undefined : Number(match[1]) * unit;
}

/** A schema for a size between two bounds (bytes), written as text. */
export function sizeSchema(options: { min: number; max: number; example: string }) {
  return z.string({ error: `a size with its unit, such as "${options.example}"` }).transform((text, context) => {
    const bytes = parseSize(text);
    if (bytes !== undefined && bytes >= options.min && bytes <= options.max) return bytes;
    const range = `${formatSize(options.min)} to ${formatSize(options.max)}`;
    context.addIssue({
      code: 'custom',
      message: `"${text}" is not a size from ${range}, such as "${options.example}"`,
    });
    return z.NEVER;
  });
}

/** A schema for a duration between two bounds (milliseconds), written as text. */
export function durationSchema(options: { min: number; max: number; example: string }) {
  return z.string({ error: `a duration with its unit, such as "${options.example}"` }).transform((text, context) => {
    const milliseconds = parseDuration(text);
    if (milliseconds !== undefined && milliseconds >= options.min && milliseconds <= options.max) return milliseconds;
    const range = `${options.min}ms to ${options.max}ms`;
    context.addIssue({
      code: 'custom',
      message: `"${text}" is not a duration from ${range}, such as "${options.example}"`,
    });
    return z.NEVER;
  });
}

export function formatSize(bytes: number): string {
  for (const [unit, factor] of [
    ['G', 1024 ** 3],
    ['M', 1024 ** 2],
    ['K', 1024],
  ] as const)
    if (bytes >= factor) return `${Number((bytes / factor).toFixed(1))}${unit}`;
  return `${bytes}B`;
}
