// The Internet checksum (RFC 1071) and its incremental update (RFC 1624, equation 3).
//
// Incremental because a translated frame must stay exactly as right or as wrong as the guest made it: computing it
// anew would turn a damaged frame into a valid one. Only a frame that we cut or build ourselves is summed in full.

/** Adds the big-endian 16-bit words of [from, to) to `start`; an odd last byte counts as a high byte. */
export function sumWords(bytes: Uint8Array, from: number, to: number, start = 0): number {
  let sum = start;
  let at = from;
  for (; at + 1 < to; at += 2) sum += ((bytes[at] as number) << 8) | (bytes[at + 1] as number);
  if (at < to) sum += (bytes[at] as number) << 8;
  return sum;
}

/** Folds the carries of a sum of up to 65,535 words into 16 bits. */
export function fold(sum: number): number {
  let folded = sum;
  while (folded > 0xffff) folded = (folded & 0xffff) + Math.floor(folded / 0x10000);
  return folded;
}

/** The checksum field over [from, to), with `start` for a pseudo header. */
export function checksum(bytes: Uint8Array, from: number, to: number, start = 0): number {
  return ~fold(sumWords(bytes, from, to, start)) & 0xffff;
}

export function read16(bytes: Uint8Array, at: number): number {
  return ((bytes[at] as number) << 8) | (bytes[at + 1] as number);
}

export function read32(bytes: Uint8Array, at: number): number {
  return ((read16(bytes, at) << 16) | read16(bytes, at + 2)) >>> 0;
}

export function write16(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 8;
  bytes[at + 1] = value;
}

export function write32(bytes: Uint8Array, at: number, value: number): void {
  write16(bytes, at, value >>> 16);
  write16(bytes, at + 2, value & 0xffff);
}

/** Replaces the aligned 16-bit field at `at` and updates the checksum field at `checksumAt`. */
export function replace16(bytes: Uint8Array, checksumAt: number, at: number, value: number): void {
  const before = read16(bytes, at);
  write16(bytes, at, value);
  adjust(bytes, checksumAt, before, value & 0xffff);
}

/** Replaces the 32-bit field at `at` of a header that begins at `base`; the field may stand at an odd offset (SACK). */
export function replace32(bytes: Uint8Array, checksumAt: number, base: number, at: number, value: number): void {
  const odd = ((at - base) & 1) === 1;
  const before = sumOfField(bytes, at, odd);
  write32(bytes, at, value);
  adjust(bytes, checksumAt, before, sumOfField(bytes, at, odd));
}

function sumOfField(bytes: Uint8Array, at: number, odd: boolean): number {
  if (!odd) return read16(bytes, at) + read16(bytes, at + 2);
  return (bytes[at] as number) + read16(bytes, at + 1) + ((bytes[at + 3] as number) << 8);
}

function adjust(bytes: Uint8Array, checksumAt: number, before: number, after: number): void {
  const sum = (~read16(bytes, checksumAt) & 0xffff) + (0xffff - fold(before)) + after;
  write16(bytes, checksumAt, ~fold(sum) & 0xffff);
}
