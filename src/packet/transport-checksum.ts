// The TCP or UDP checksum of a whole segment, with the IPv4 pseudo header. For frames that we cut or build; a frame that is
// only translated is updated incrementally (checksum.ts).

import { checksum, sumWords } from './checksum.ts';
import { ethernet } from './ethernet.ts';
import { ipProtocol, ipv4 } from './ipv4.ts';
import { tcp } from './tcp.ts';
import { udp } from './udp.ts';

/** The checksum of the TCP or UDP segment in [at, end), its own field left out (they lie at different places). */
export function transportChecksum(frame: Uint8Array, at: number, end: number, protocol: number): number {
  const field = at + (protocol === ipProtocol.tcp ? tcp.checksum : udp.checksum);
  const ipAt = ethernet.headerBytes;
  const pseudo = sumWords(frame, ipAt + ipv4.source, ipAt + ipv4.headerBytesMin, protocol + (end - at));
  return checksum(frame, field + 2, end, sumWords(frame, at, field, pseudo));
}
