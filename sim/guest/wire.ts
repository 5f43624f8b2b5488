// How the packets of a run look on the network: IPv4 or IPv6, VLAN tags, fragments. Guest and clients have addresses of
// 32 bits; with IPv6 these are the end of addresses of 16 bytes. Everything else of them is drawn here too: which
// options their TCP has, and how often clients ask for what is neither TCP nor UDP.

import { announce, arp } from '../../src/packet/arp.ts';
import { type Address, buildFragments } from '../../src/packet/build.ts';
import { read32, write16, write32 } from '../../src/packet/checksum.ts';
import { announcementOf } from '../../src/packet/claim.ts';
import { broadcastMac } from '../../src/packet/ethernet.ts';
import type { FrameView } from '../../src/packet/frame-view.ts';
import { ipProtocol, ipv4 } from '../../src/packet/ipv4.ts';
import { ipv6 } from '../../src/packet/ipv6.ts';
import { transportChecksum } from '../../src/packet/transport-checksum.ts';
import { udp } from '../../src/packet/udp.ts';
import type { Random } from '../world/random.ts';

export interface Wire {
  ipv6: boolean;
  /** VLAN ids, the outer one first. */
  tags: readonly number[];
  /** What TCP says in its SYNs, where both ends do. */
  stamps: boolean;
  ecn: boolean;
  /** How likely a guest's copy says something else in a SYN. */
  fickle: number;
  /** By each client, a second. */
  pings: number;
  lookups: number;
  /** Answers by datagram to questions of odd numbers come in fragments. */
  fragmented: boolean;
}

export const plainWire: Wire = {
  ...{ ipv6: false, tags: [], stamps: false, ecn: false, fickle: 0, pings: 0, lookups: 0, fragmented: false },
};

export function drawWire(random: Random): Wire {
  const ipv6 = random.chance(0.25);
  const tags = random.chance(0.25) ? random.pick([[7], [100, 42]] as const) : [];
  return {
    ...{ ipv6, tags, stamps: random.chance(0.5), ecn: random.chance(0.3), fickle: random.chance(0.15) ? 0.05 : 0 },
    pings: random.pick([0, 0, 10]),
    lookups: ipv6 ? 0 : random.pick([0, 0, 5]),
    fragmented: tags.length === 0 && random.chance(0.3),
  };
}

/** fd00::, with the address of 32 bits at its end. */
function ipv6Of(ip: number): Uint8Array {
  const address = new Uint8Array(16);
  address[0] = 0xfd;
  write32(address, 12, ip);
  return address;
}

export function onWire(address: Address, { ipv6, tags }: Wire): Address {
  const ip = ipv6 && typeof address.ip === 'number' ? ipv6Of(address.ip) : address.ip;
  return { ...address, ip, tags };
}

const ends = { 4: { source: 12, target: 16 }, 6: { source: 20, target: 36 } } as const;

export function sourceIp(view: FrameView): number {
  return read32(view.frame, view.ipAt + ends[view.isIpv6 ? 6 : 4].source) >>> 0;
}

export function targetIp(view: FrameView): number {
  return read32(view.frame, view.ipAt + ends[view.isIpv6 ? 6 : 4].target) >>> 0;
}

/** What one that boots says of its address. */
export function announcement({ mac, ip }: { mac: Uint8Array; ip: number }, wire: Wire): Uint8Array {
  const address = wire.ipv6 ? ipv6Of(ip) : new Uint8Array(4);
  if (!wire.ipv6) write32(address, 0, ip);
  return announcementOf({ mac, address, tags: tagBytes(wire), isRouter: false, isReply: false });
}

function tagBytes({ tags }: Wire): Uint8Array {
  const bytes = new Uint8Array(4 * tags.length);
  for (const [index, tag] of tags.entries()) {
    write16(bytes, 4 * index, 0x8100);
    write16(bytes, 4 * index + 2, tag);
  }
  return bytes;
}

interface Place {
  mac: Uint8Array;
  ip: number;
}

/** ARP: who has `target`, to everybody; or, with its address, the answer to who asked. */
export function arpFrame(from: Place, target: { mac?: Uint8Array; ip: number }, wire: Wire): Uint8Array {
  const plain = announce(from.mac, from.ip);
  const at = 14;
  write32(plain, at + arp.targetIp, target.ip);
  plain.set(target.mac ?? broadcastMac, 0);
  if (target.mac !== undefined) {
    write16(plain, at + arp.operation, arp.reply);
    plain.set(target.mac, at + arp.targetMac);
  }
  return Uint8Array.from([...plain.subarray(0, 12), ...tagBytes(wire), ...plain.subarray(12)]);
}

/** An ARP frame's operation and addresses; undefined: it is none. */
export function readArp(view: FrameView): { isRequest: boolean; sender: Place; target: number } | undefined {
  if (view.kind !== 'arp') return undefined;
  const { frame } = view;
  const at = view.contentFrom - arp.senderMac;
  const sender = {
    mac: Uint8Array.from(frame.subarray(at + arp.senderMac, at + arp.senderIp)),
    ip: read32(frame, at + arp.senderIp) >>> 0,
  };
  const isRequest = frame[at + arp.operation + 1] === arp.request;
  return { isRequest, sender, target: read32(frame, at + arp.targetIp) >>> 0 };
}

/** The smallest pieces that there are, so that a datagram of 13 bytes comes in three. */
const pieceBytes = 8;

export function inFragments(frame: Uint8Array, id: number): Uint8Array[] {
  return buildFragments(frame, id, pieceBytes);
}

/**
 * Puts packets together from their fragments. A guest that was booted anew, or a survivor, counts its packets from
 * where it likes: what is left of an older packet with the same number is told from the new one by the checksum, as
 * everywhere.
 */
export class Assembler {
  private readonly packets = new Map<string, Map<number, { bytes: Uint8Array; isLast: boolean }>>();

  /** What a packet carries, when this was the last piece of it that was missing. */
  push(view: FrameView): Uint8Array | undefined {
    const name = `${sourceIp(view)} ${targetIp(view)} ${view.fragmentId}`;
    const pieces = this.packets.get(name) ?? new Map<number, { bytes: Uint8Array; isLast: boolean }>();
    this.packets.set(name, pieces);
    const bytes = Uint8Array.from(view.frame.subarray(view.contentFrom, view.contentTo));
    pieces.set(view.fragmentOffset, { bytes, isLast: !view.hasMoreFragments });
    let at = 0;
    const parts: Uint8Array[] = [];
    for (let piece = pieces.get(0); piece !== undefined; piece = pieces.get(at)) {
      parts.push(piece.bytes);
      at += piece.bytes.length;
      if (!piece.isLast) continue;
      this.packets.delete(name);
      const packet = Buffer.concat(parts);
      return isWhole(view, packet) ? packet : undefined;
    }
    return undefined;
  }
}

/** Whether the checksum of a UDP packet, put together, is right. */
function isWhole(view: FrameView, packet: Uint8Array): boolean {
  const headerBytes = view.isIpv6 ? ipv6.headerBytes : ipv4.headerBytesMin;
  const whole = Buffer.concat([view.frame.subarray(view.ipAt, view.ipAt + headerBytes), packet]);
  const found = whole.readUInt16BE(headerBytes + udp.checksum);
  return found === (transportChecksum(whole, 0, headerBytes, whole.length, ipProtocol.udp) || 0xffff);
}
