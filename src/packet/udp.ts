// The UDP header (RFC 768): source port, target port, length, checksum, 16 bits each. The length may be shorter than
// the IP payload, never longer; what lies behind it is padding.

import { read16 } from './checksum.ts';
import type { Refusal } from './ethernet.ts';

export const udp = { sourcePort: 0, targetPort: 2, length: 4, checksum: 6, headerBytes: 8 } as const;

export function checkUdp(frame: Uint8Array, at: number, end: number): Refusal | undefined {
  if (end - at < udp.headerBytes) return 'udp-truncated';
  const length = read16(frame, at + udp.length);
  return length < udp.headerBytes || at + length > end ? 'udp-length' : undefined;
}
