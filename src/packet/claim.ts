// What a frame says about who has an address on this network, and the frame that says it to everybody.
//
//   claims    ARP request: its sender has the sender's address       (a reply may be a proxy's)
//             neighbour advertisement with the override flag and a link-layer address: the target is there
//   no claim  probes (sender 0.0.0.0 or ::), solicitations, advertisements without override (proxies, anycast)
//
// A neighbour that has an IPv6 address of the guest in its cache got an advertisement for it once; only there stands
// whether the guest is a router, and one that was said to be none any more would lose its routes (RFC 4861, 7.2.5).

import { announce, arp, checkArp } from './arp.ts';
import { cardMarkBytes, cardOf } from './card.ts';
import { read16, read32, write16, write32 } from './checksum.ts';
import { ethernet, etherType, writeEthernet } from './ethernet.ts';
import { ipProtocol } from './ipv4.ts';
import { checkIpv6, ipv6 } from './ipv6.ts';
import { tagsMax } from './limits.ts';
import { transportChecksum } from './transport-checksum.ts';

export interface Claim {
  mac: Uint8Array;
  /** 4 or 16 bytes. */
  address: Uint8Array;
  /**
   * The mark of the card and the VLAN tags as they stand in the frame, without priorities: up to tagBytesMax
   * (limits.ts).
   */
  tags: Uint8Array;
  isRouter: boolean;
  /** An ARP reply may be given by another machine, for one that it answers for. */
  isReply: boolean;
}

const neighbourAdvertisement = 136;
const targetLinkLayer = 2;
const advertisement = { flags: 4, target: 8, options: 24, optionBytes: 8 } as const;
const flag = { router: 0x80, override: 0x20 } as const;
const allNodesMac = Uint8Array.of(0x33, 0x33, 0, 0, 0, 1);

/** The claim that a frame makes. Most frames make none, and are looked at for one field only. */
export function claimOf(frame: Uint8Array): Claim | undefined {
  const at = typeAt(frame);
  if (at + 2 > frame.length) return undefined;
  const type = read16(frame, at);
  if (type === etherType.arp) return arpClaim(frame, at);
  return type === etherType.ipv6 && frame[at + 2 + ipv6.nextHeader] === ipProtocol.icmpv6
    ? neighbourClaim(frame, at)
    : undefined;
}

/** Where the type of what the frame carries stands, behind the mark of its card and its VLAN tags. */
function typeAt(frame: Uint8Array): number {
  let at: number = ethernet.type;
  if (cardOf(frame) > 0) at += cardMarkBytes;
  for (let tags = 0; tags < tagsMax && at + 6 <= frame.length; tags += 1, at += 4) {
    const type = read16(frame, at);
    if (type !== etherType.vlan && type !== etherType.stackedVlan) break;
  }
  return at;
}

/** A frame is often a Buffer over somebody's receive buffer, and `slice` of a Buffer is no copy. */
function copyOf(frame: Uint8Array, from: number, to: number): Uint8Array {
  return Uint8Array.from(frame.subarray(from, to));
}

function tagsOf(frame: Uint8Array, end: number): Uint8Array {
  const tags = copyOf(frame, ethernet.type, end);
  for (let at = 2; at < tags.length; at += 4) write16(tags, at, read16(tags, at) & 0x0fff);
  return tags;
}

function arpClaim(frame: Uint8Array, at: number): Claim | undefined {
  const header = at + 2;
  if (checkArp(frame, header) !== undefined || read32(frame, header + arp.senderIp) === 0) return undefined;
  return {
    mac: copyOf(frame, header + arp.senderMac, header + arp.senderIp),
    address: copyOf(frame, header + arp.senderIp, header + arp.targetMac),
    tags: tagsOf(frame, at),
    isRouter: false,
    isReply: read16(frame, header + arp.operation) !== arp.request,
  };
}

function neighbourClaim(frame: Uint8Array, at: number): Claim | undefined {
  const ipAt = at + 2;
  if (checkIpv6(frame, ipAt) !== undefined || frame[ipAt + ipv6.hopLimit] !== 255) return undefined;
  const end = ipAt + ipv6.headerBytes + read16(frame, ipAt + ipv6.payloadLength);
  const message = ipAt + ipv6.headerBytes;
  if (end - message < advertisement.options || frame[message] !== neighbourAdvertisement) return undefined;
  const flags = frame[message + advertisement.flags] as number;
  const option = findOption(frame, message + advertisement.options, end);
  if ((flags & flag.override) === 0 || option === undefined) return undefined;
  const address = copyOf(frame, message + advertisement.target, message + advertisement.options);
  if (address[0] === 0xff || address.every((byte) => byte === 0)) return undefined;
  const mac = copyOf(frame, option + 2, option + advertisement.optionBytes);
  return { mac, address, tags: tagsOf(frame, at), isRouter: (flags & flag.router) !== 0, isReply: false };
}

function findOption(frame: Uint8Array, from: number, end: number): number | undefined {
  for (let at = from; at + advertisement.optionBytes <= end; ) {
    const bytes = (frame[at + 1] as number) * 8;
    if (bytes === 0) return undefined;
    if (frame[at] === targetLinkLayer) return at;
    at += bytes;
  }
  return undefined;
}

/** The claim as a frame to everybody: a gratuitous ARP, or an unsolicited neighbour advertisement. */
export function announcementOf(claim: Claim): Uint8Array {
  const isIpv6 = claim.address.length === 16;
  const frame = isIpv6 ? advertise(claim) : announce(claim.mac, read32(claim.address, 0));
  if (claim.tags.length === 0) return frame;
  const tagged = new Uint8Array(frame.length + claim.tags.length);
  tagged.set(frame.subarray(0, ethernet.type));
  tagged.set(claim.tags, ethernet.type);
  tagged.set(frame.subarray(ethernet.type), ethernet.type + claim.tags.length);
  return tagged;
}

function advertise({ mac, address, isRouter }: Claim): Uint8Array {
  const ipAt = ethernet.headerBytes;
  const at = ipAt + ipv6.headerBytes;
  const bytes = advertisement.options + advertisement.optionBytes;
  const frame = new Uint8Array(at + bytes);
  writeEthernet(frame, allNodesMac, mac, etherType.ipv6);
  frame[ipAt] = 0x60;
  write16(frame, ipAt + ipv6.payloadLength, bytes);
  frame[ipAt + ipv6.nextHeader] = ipProtocol.icmpv6;
  frame[ipAt + ipv6.hopLimit] = 255;
  frame.set(address, ipAt + ipv6.source);
  write16(frame, ipAt + ipv6.target, 0xff02);
  frame[ipAt + ipv6.headerBytes - 1] = 1;
  frame[at] = neighbourAdvertisement;
  write32(frame, at + advertisement.flags, (flag.override | (isRouter ? flag.router : 0)) * 2 ** 24);
  frame.set(address, at + advertisement.target);
  frame[at + advertisement.options] = targetLinkLayer;
  frame[at + advertisement.options + 1] = 1;
  frame.set(mac, at + advertisement.options + 2);
  write16(frame, at + 2, transportChecksum(frame, ipAt, at, frame.length, ipProtocol.icmpv6));
  return frame;
}
