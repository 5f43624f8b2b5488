// The checksum of a whole TCP, UDP or ICMPv6 message, with the pseudo header of its IP version. For frames that we cut
// or build; a frame that is only translated is updated incrementally (checksum.ts).

import { checksum, sumWords } from './checksum.ts';
import { icmp } from './icmp.ts';
import { ipProtocol, ipv4 } from './ipv4.ts';
import { ipv6 } from './ipv6.ts';
import { tcp } from './tcp.ts';
import { udp } from './udp.ts';

/** The checksum of the message in [at, end) of the IP packet at `ipAt`, its own field left out. */
export function transportChecksum(frame: Uint8Array, ipAt: number, at: number, end: number, protocol: number): number {
  const field = at + fieldOf(protocol);
  const isIpv6 = (frame[ipAt] as number) >>> 4 === 6;
  const from = ipAt + (isIpv6 ? ipv6.source : ipv4.source);
  const to = ipAt + (isIpv6 ? ipv6.headerBytes : ipv4.headerBytesMin);
  const pseudo = sumWords(frame, from, to, protocol + (end - at));
  return checksum(frame, field + 2, end, sumWords(frame, at, field, pseudo));
}

function fieldOf(protocol: number): number {
  if (protocol === ipProtocol.tcp) return tcp.checksum;
  return protocol === ipProtocol.udp ? udp.checksum : icmp.checksum;
}
