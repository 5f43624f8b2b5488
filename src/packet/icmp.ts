// The ICMP header (RFC 792): type, code, checksum (16 bits), then 32 bits that hold identifier and sequence for echo and
// the like, and something else or nothing for errors; then content.

import type { Refusal } from './ethernet.ts';

export const icmp = { type: 0, code: 1, checksum: 2, id: 4, headerBytes: 8 } as const;

export function checkIcmp(at: number, end: number): Refusal | undefined {
  return end - at < icmp.headerBytes ? 'icmp-truncated' : undefined;
}
