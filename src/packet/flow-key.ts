// The name of a flow: two addresses, two ports (or what a protocol has in their place), the protocol and the VLAN tags.
// All as signed 32-bit numbers, so that neither a look-up nor a comparison allocates. Addresses of either family have
// four words; one of IPv4 fills the first.
//
// Named from the guest: the same key comes out of a frame of the guest and, reversed, of a frame to it. As it travels
// between the nodes, where the family is known; addresses have 4 or 16 bytes, so that a key has 16 or 40:
//
//    0      4               8, 20            12, 36       14, 38        16, 40
//    | tags | guest address | client address | guest port | client port |
//
// "tags" is the guest's card (card.ts) in the highest 4 bits, the number of 802.1Q tags in the next 4, then 12 bits of
// each. Priority bits name no flow.

import { read32, write32 } from './checksum.ts';
import { ipText } from './ipv4.ts';
import { ipv6Text } from './ipv6.ts';

export const flowKeyBytes = { ipv4: 16, ipv6: 40 } as const;
export const family = { none: 0, ipv4: 4, ipv6: 6 } as const;

let factor0 = 0x9e3779b1;
let factor1 = 0x85ebca6b;
let factor2 = 0xc2b2ae35;
let factor3 = 0x27d4eb2f;
let factor4 = 0x165667b1;

/**
 * Gives this process hashes of its own, before it makes any: `random` are five numbers that nobody else knows. Who knew
 * them could choose addresses and ports that all have one hash, and a look-up would go through all of these.
 */
export function scatterHashes(random: readonly number[]): void {
  const odd = (number: number | undefined, factor: number) => ((number ?? 0) ^ factor) | 1;
  [factor0, factor1] = [odd(random[0], factor0), odd(random[1], factor1)];
  [factor2, factor3, factor4] = [odd(random[2], factor2), odd(random[3], factor3), odd(random[4], factor4)];
}

export class FlowKey {
  /** The guest's address, or whoever sent the frame. */
  a0 = 0;
  a1 = 0;
  a2 = 0;
  a3 = 0;
  /** The client's address. */
  b0 = 0;
  b1 = 0;
  b2 = 0;
  b3 = 0;
  /** Guest port in the high half, client port in the low half; of other protocols what tells flows apart. */
  ports = 0;
  /** Family in bits 16 to 23, protocol below; above, a sum of IP options where there are any. */
  protocol = 0;
  tags = 0;

  get family(): number {
    return (this.protocol >>> 16) & 0xff;
  }

  get guestPort(): number {
    return this.ports >>> 16;
  }

  get clientPort(): number {
    return this.ports & 0xffff;
  }

  /** Takes the words from the packet: `a` from the address at `source`, `b` from the one at `target`. */
  readAddresses(frame: Uint8Array, source: number, target: number, isIpv6: boolean): void {
    this.a0 = read32(frame, source) | 0;
    this.b0 = read32(frame, target) | 0;
    this.a1 = isIpv6 ? read32(frame, source + 4) | 0 : 0;
    this.a2 = isIpv6 ? read32(frame, source + 8) | 0 : 0;
    this.a3 = isIpv6 ? read32(frame, source + 12) | 0 : 0;
    this.b1 = isIpv6 ? read32(frame, target + 4) | 0 : 0;
    this.b2 = isIpv6 ? read32(frame, target + 8) | 0 : 0;
    this.b3 = isIpv6 ? read32(frame, target + 12) | 0 : 0;
  }

  copyFrom(other: FlowKey): this {
    this.a0 = other.a0;
    this.a1 = other.a1;
    this.a2 = other.a2;
    this.a3 = other.a3;
    this.b0 = other.b0;
    this.b1 = other.b1;
    this.b2 = other.b2;
    this.b3 = other.b3;
    this.ports = other.ports;
    this.protocol = other.protocol;
    this.tags = other.tags;
    return this;
  }

  /** The flow of `other`, seen from its other end. */
  reverse(other: FlowKey): this {
    this.a0 = other.b0;
    this.a1 = other.b1;
    this.a2 = other.b2;
    this.a3 = other.b3;
    this.b0 = other.a0;
    this.b1 = other.a1;
    this.b2 = other.a2;
    this.b3 = other.a3;
    this.ports = (other.ports << 16) | (other.ports >>> 16);
    this.protocol = other.protocol;
    this.tags = other.tags;
    return this;
  }

  equals(other: FlowKey): boolean {
    return (
      this.ports === other.ports &&
      this.b0 === other.b0 &&
      this.b3 === other.b3 &&
      this.a0 === other.a0 &&
      this.a3 === other.a3 &&
      this.protocol === other.protocol &&
      this.tags === other.tags &&
      this.b1 === other.b1 &&
      this.b2 === other.b2 &&
      this.a1 === other.a1 &&
      this.a2 === other.a2
    );
  }

  /** A small integer: a key that needs no allocation. */
  hash(): number {
    let mixed = Math.imul(this.a0 ^ (this.protocol << 7) ^ this.tags, factor0) ^ Math.imul(this.b0, factor1);
    mixed = Math.imul(mixed ^ (mixed >>> 15) ^ this.ports, factor2);
    if (this.a3 !== 0 || this.b3 !== 0) {
      mixed ^= Math.imul(this.a3 ^ this.b2, factor3) ^ Math.imul(this.b3 ^ this.a2, factor4);
      mixed = Math.imul(mixed ^ (mixed >>> 15) ^ this.a1 ^ this.b1, factor0);
    }
    return (mixed ^ (mixed >>> 13)) >> 2;
  }
}

/** Writes the key at `at`; returns how many bytes it has. */
export function packFlowKey(key: FlowKey, into: Uint8Array, at: number): number {
  write32(into, at, key.tags);
  write32(into, at + 4, key.a0);
  if (key.family !== family.ipv6) {
    write32(into, at + 8, key.b0);
    write32(into, at + 12, key.ports);
    return flowKeyBytes.ipv4;
  }
  write32(into, at + 8, key.a1);
  write32(into, at + 12, key.a2);
  write32(into, at + 16, key.a3);
  write32(into, at + 20, key.b0);
  write32(into, at + 24, key.b1);
  write32(into, at + 28, key.b2);
  write32(into, at + 32, key.b3);
  write32(into, at + 36, key.ports);
  return flowKeyBytes.ipv6;
}

/** The key of `protocol` at `at`; undefined when there are too few bytes. */
export function unpackFlowKey(bytes: Uint8Array, at: number, isIpv6: boolean, protocol: number): FlowKey | undefined {
  const end = at + (isIpv6 ? flowKeyBytes.ipv6 : flowKeyBytes.ipv4);
  if (bytes.length < end) return undefined;
  const key = new FlowKey();
  key.readAddresses(bytes, at + 4, at + (isIpv6 ? 20 : 8), isIpv6);
  key.tags = read32(bytes, at) | 0;
  key.ports = read32(bytes, end - 4) | 0;
  key.protocol = ((isIpv6 ? family.ipv6 : family.ipv4) << 16) | protocol;
  return key;
}

/** "client > guest", as an operator knows the connection. */
export function flowText(key: FlowKey, protocol: string, withPorts = true): string {
  const client = endText(key, key.b0, key.b1, key.b2, key.b3, withPorts ? key.clientPort : undefined);
  const guest = endText(key, key.a0, key.a1, key.a2, key.a3, withPorts ? key.guestPort : undefined);
  return `${client} > ${guest} ${protocol}${tagsText(key.tags)}`;
}

function endText(key: FlowKey, w0: number, w1: number, w2: number, w3: number, port: number | undefined): string {
  const isIpv6 = key.family === family.ipv6;
  const address = isIpv6 ? ipv6Text([w0, w1, w2, w3]) : ipText(w0 >>> 0);
  if (port === undefined) return address;
  return isIpv6 ? `[${address}]:${port}` : `${address}:${port}`;
}

function tagsText(tags: number): string {
  const count = (tags >>> 24) & 0xf;
  const card = tags >>> 28 === 0 ? '' : ` card ${tags >>> 28}`;
  if (count === 0) return card;
  return `${card} vlan ${count === 1 ? '' : `${(tags >>> 12) & 0xfff}.`}${tags & 0xfff}`;
}

/** Guest port and client port as one number. */
export function portsOf(guestPort: number, clientPort: number): number {
  return (guestPort << 16) | clientPort;
}
