// TCP sequence numbers: 32 bits that wrap. Two numbers are compared by their signed distance, which is right as long
// as they lie less than 2^31 apart; windows are far smaller.

/** How far `a` lies beyond `b`; negative when it lies before. */
export function distance(a: number, b: number): number {
  return (a - b) | 0;
}

export function advance(sequence: number, bytes: number): number {
  return (sequence + bytes) >>> 0;
}

export function earlier(a: number, b: number): number {
  return distance(a, b) <= 0 ? a : b;
}

export function later(a: number, b: number): number {
  return distance(a, b) >= 0 ? a : b;
}
