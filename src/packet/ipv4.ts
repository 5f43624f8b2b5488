// The IPv4 header (RFC 791), offsets from its start:
//
//    0         1    2             4    6                8     9          10         12       16       20
//    | ver,ihl | tos | total length | id | flags, fragment | ttl | protocol | checksum | source | target | options ...

import { read16 } from './checksum.ts';
import type { Refusal } from './ethernet.ts';

export const ipv4 = {
  totalLength: 2,
  id: 4,
  fragment: 6,
  protocol: 9,
  checksum: 10,
  source: 12,
  target: 16,
  headerBytesMin: 20,
} as const;

export const ipProtocol = { icmp: 1, tcp: 6, udp: 17, icmpv6: 58 } as const;

/** The more-fragments flag of the fragment field. */
export const moreFragments = 0x2000;

/** More-fragments flag and fragment offset: any of these bits makes the packet a fragment. */
export const fragmentMask = 0x3fff;

export function checkIpv4(frame: Uint8Array, at: number): Refusal | undefined {
  if (frame.length < at + ipv4.headerBytesMin) return 'ipv4-truncated';
  if ((frame[at] as number) >>> 4 !== 4) return 'ipv4-version';
  const headerBytes = ipv4HeaderBytes(frame, at);
  const totalLength = read16(frame, at + ipv4.totalLength);
  if (headerBytes < ipv4.headerBytesMin || headerBytes > totalLength) return 'ipv4-header-length';
  return at + totalLength > frame.length ? 'ipv4-total-length' : undefined;
}

export function ipv4HeaderBytes(frame: Uint8Array, at: number): number {
  return ((frame[at] as number) & 15) * 4;
}

export function ipText(ip: number): string {
  return `${ip >>> 24}.${(ip >>> 16) & 255}.${(ip >>> 8) & 255}.${ip & 255}`;
}

/** The number of a dotted address; undefined when the text is none. */
export function parseIp(text: string): number | undefined {
  const parts = text.split('.');
  if (parts.length !== 4 || !parts.every((part) => /^\d{1,3}$/.test(part) && Number(part) < 256)) return undefined;
  return parts.reduce((ip, part) => ip * 256 + Number(part), 0);
}
