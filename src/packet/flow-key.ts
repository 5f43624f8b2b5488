// The name of a TCP connection as it travels between the nodes, 16 bytes:
//
//    0        1          4          8           12           14
//    | family | reserved | guest IP | client IP | guest port | client port |
//
// Named from the guest: the same key comes out of a frame of the guest and of a frame to it. The family (4) is first, so
// that IPv6 can have a longer key of its own.

import { read32, write16, write32 } from './checksum.ts';
import { ipText } from './ipv4.ts';

export const flowKeyBytes = 16;
export const familyIpv4 = 4;

export interface FlowKey {
  guestIp: number;
  clientIp: number;
  /** Guest port in the high half, client port in the low half. */
  ports: number;
}

export function packFlowKey(key: FlowKey, into: Uint8Array, at: number): void {
  into.fill(0, at, at + 4);
  into[at] = familyIpv4;
  write32(into, at + 4, key.guestIp);
  write32(into, at + 8, key.clientIp);
  write16(into, at + 12, key.ports >>> 16);
  write16(into, at + 14, key.ports & 0xffff);
}

/** The key at `at`; undefined when these are not the bytes of one. */
export function unpackFlowKey(bytes: Uint8Array, at: number): FlowKey | undefined {
  if (bytes.length < at + flowKeyBytes || bytes[at] !== familyIpv4) return undefined;
  return { guestIp: read32(bytes, at + 4), clientIp: read32(bytes, at + 8), ports: read32(bytes, at + 12) };
}

/** "client > guest", as an operator knows the connection. */
export function flowText(key: FlowKey, protocol: string): string {
  const client = `${ipText(key.clientIp)}:${key.ports & 0xffff}`;
  return `${client} > ${ipText(key.guestIp)}:${key.ports >>> 16} ${protocol}`;
}

/** A hash of four numbers, small enough to be a key that needs no allocation. */
export function flowHash(a: number, b: number, c: number, d: number): number {
  let mixed = Math.imul(a ^ (d << 7), 0x9e3779b1) ^ Math.imul(b, 0x85ebca6b);
  mixed = Math.imul(mixed ^ (mixed >>> 15) ^ c, 0xc2b2ae35);
  return (mixed ^ (mixed >>> 13)) >> 2;
}
