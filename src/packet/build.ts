// Frames from nothing, for tests, simulation and benchmarks: every one with right lengths and checksums. An address of
// 16 bytes makes an IPv6 packet; tags of the sender make 802.1Q headers, the outer one first.

import { checksum, write16, write32 } from './checksum.ts';
import { ethernet, etherType, writeEthernet } from './ethernet.ts';
import { icmp } from './icmp.ts';
import { ipProtocol, ipv4 } from './ipv4.ts';
import { extension, ipv6 } from './ipv6.ts';
import { tcp, tcpFlag } from './tcp.ts';
import { transportChecksum } from './transport-checksum.ts';
import { udp } from './udp.ts';

export interface Address {
  mac: Uint8Array;
  ip: number | Uint8Array;
  port: number;
  /** VLAN ids, the outer one first. */
  tags?: readonly number[];
}

export interface Segment {
  sequence: number;
  ack?: number;
  flags: number;
  window?: number;
  /** Urgent pointer; makes the flag too. */
  urgent?: number;
  /** Raw option bytes, a multiple of four. */
  options?: Uint8Array;
  payload?: Uint8Array;
}

const none = new Uint8Array(0);

export function buildTcp(from: Address, to: Address, segment: Segment): Uint8Array {
  const options = segment.options ?? none;
  const payload = segment.payload ?? none;
  const headerBytes = tcp.headerBytesMin + options.length;
  const { frame, ipAt, at } = buildIp(from, to, ipProtocol.tcp, headerBytes + payload.length);
  write16(frame, at + tcp.sourcePort, from.port);
  write16(frame, at + tcp.targetPort, to.port);
  write32(frame, at + tcp.sequence, segment.sequence);
  write32(frame, at + tcp.ack, segment.ack ?? 0);
  frame[at + tcp.dataOffset] = (headerBytes / 4) << 4;
  const urgent = segment.urgent === undefined ? 0 : tcpFlag.urg;
  frame[at + tcp.flags] = segment.flags | urgent | (segment.ack === undefined ? 0 : tcpFlag.ack);
  write16(frame, at + tcp.window, segment.window ?? 65535);
  write16(frame, at + tcp.urgent, segment.urgent ?? 0);
  frame.set(options, at + tcp.headerBytesMin);
  frame.set(payload, at + headerBytes);
  write16(frame, at + tcp.checksum, transportChecksum(frame, ipAt, at, frame.length, ipProtocol.tcp));
  return frame;
}

/** The timestamps option as most guests lay it out. */
export function timestampsOption(value: number, echo: number): Uint8Array {
  const option = new Uint8Array(12);
  write32(option, 0, 0x0101080a);
  write32(option, 4, value);
  write32(option, 8, echo);
  return option;
}

export function buildUdp(from: Address, to: Address, payload: Uint8Array): Uint8Array {
  const { frame, ipAt, at } = buildIp(from, to, ipProtocol.udp, udp.headerBytes + payload.length);
  write16(frame, at + udp.sourcePort, from.port);
  write16(frame, at + udp.targetPort, to.port);
  write16(frame, at + udp.length, udp.headerBytes + payload.length);
  frame.set(payload, at + udp.headerBytes);
  const sum = transportChecksum(frame, ipAt, at, frame.length, ipProtocol.udp);
  write16(frame, at + udp.checksum, sum || 0xffff);
  return frame;
}

export function buildIcmpEcho(from: Address, to: Address, echo: { reply: boolean; id: number; sequence: number }) {
  const isIpv6 = typeof from.ip !== 'number';
  const body = new Uint8Array(8);
  write16(body, 0, echo.id);
  write16(body, 2, echo.sequence);
  const type = isIpv6 ? (echo.reply ? 129 : 128) : echo.reply ? 0 : 8;
  return buildIcmp(from, to, { type, code: 0, body });
}

/** `body` is everything behind the checksum, at least four bytes. */
export function buildIcmp(from: Address, to: Address, message: { type: number; code: number; body: Uint8Array }) {
  const isIpv6 = typeof from.ip !== 'number';
  const protocol = isIpv6 ? ipProtocol.icmpv6 : ipProtocol.icmp;
  const { frame, ipAt, at } = buildIp(from, to, protocol, icmp.id + message.body.length);
  frame[at + icmp.type] = message.type;
  frame[at + icmp.code] = message.code;
  frame.set(message.body, at + icmp.id);
  const sum = isIpv6 ? transportChecksum(frame, ipAt, at, frame.length, protocol) : checksum(frame, at, frame.length);
  write16(frame, at + icmp.checksum, sum);
  return frame;
}

/**
 * The fragments of a frame without options or extension headers, each with up to `bytes` of what the packet carries.
 */
export function buildFragments(frame: Uint8Array, id: number, bytes: number): Uint8Array[] {
  const ipAt = ethernet.headerBytes;
  const isIpv6 = (frame[ipAt] as number) >>> 4 === 6;
  const at = ipAt + (isIpv6 ? ipv6.headerBytes : ipv4.headerBytesMin);
  const fragments: Uint8Array[] = [];
  for (let from = 0; at + from < frame.length; from += bytes) {
    const piece = frame.subarray(at + from, at + from + bytes);
    const hasMore = at + from + bytes < frame.length;
    const cut = isIpv6 ? fragmentOfIpv6(frame, at, id, from, hasMore) : fragmentOfIpv4(frame, at, id, from, hasMore);
    fragments.push(Uint8Array.from([...cut, ...piece]));
  }
  for (const fragment of fragments) setLength(fragment, ipAt, isIpv6);
  return fragments;
}

function fragmentOfIpv4(frame: Uint8Array, at: number, id: number, from: number, hasMore: boolean): Uint8Array {
  const header = Uint8Array.from(frame.subarray(0, at));
  write16(header, ethernet.headerBytes + ipv4.id, id);
  write16(header, ethernet.headerBytes + ipv4.fragment, (from / 8) | (hasMore ? 0x2000 : 0));
  return header;
}

function fragmentOfIpv6(frame: Uint8Array, at: number, id: number, from: number, hasMore: boolean): Uint8Array {
  const header = new Uint8Array(at + 8);
  header.set(frame.subarray(0, at));
  const nextHeaderAt = ethernet.headerBytes + ipv6.nextHeader;
  header[at] = frame[nextHeaderAt] as number;
  header[nextHeaderAt] = extension.fragment;
  write16(header, at + 2, from | (hasMore ? 1 : 0));
  write32(header, at + 4, id);
  return header;
}

function setLength(frame: Uint8Array, ipAt: number, isIpv6: boolean): void {
  if (isIpv6) {
    write16(frame, ipAt + ipv6.payloadLength, frame.length - ipAt - ipv6.headerBytes);
    return;
  }
  write16(frame, ipAt + ipv4.totalLength, frame.length - ipAt);
  write16(frame, ipAt + ipv4.checksum, 0);
  write16(frame, ipAt + ipv4.checksum, checksum(frame, ipAt, ipAt + ipv4.headerBytesMin));
}

function buildIp(from: Address, to: Address, protocol: number, bytes: number) {
  const tags = from.tags ?? [];
  const ipAt = ethernet.headerBytes + tags.length * 4;
  const isIpv6 = typeof from.ip !== 'number';
  const at = ipAt + (isIpv6 ? ipv6.headerBytes : ipv4.headerBytesMin);
  const frame = new Uint8Array(at + bytes);
  const type = isIpv6 ? etherType.ipv6 : etherType.ipv4;
  writeEthernet(frame, to.mac, from.mac, tags.length > 0 ? etherType.vlan : type);
  tags.forEach((tag, index) => {
    write16(frame, ethernet.headerBytes + 4 * index, tag);
    write16(frame, ethernet.headerBytes + 4 * index + 2, index < tags.length - 1 ? etherType.vlan : type);
  });
  if (isIpv6) writeIpv6(frame, ipAt, from, to, protocol);
  else writeIpv4(frame, ipAt, from, to, protocol);
  return { frame, ipAt, at };
}

function writeIpv4(frame: Uint8Array, at: number, from: Address, to: Address, protocol: number): void {
  frame[at] = 0x45;
  write16(frame, at + ipv4.totalLength, frame.length - at);
  write16(frame, at + ipv4.fragment, 0x4000);
  frame[at + 8] = 64;
  frame[at + ipv4.protocol] = protocol;
  write32(frame, at + ipv4.source, from.ip as number);
  write32(frame, at + ipv4.target, to.ip as number);
  write16(frame, at + ipv4.checksum, checksum(frame, at, at + ipv4.headerBytesMin));
}

function writeIpv6(frame: Uint8Array, at: number, from: Address, to: Address, protocol: number): void {
  frame[at] = 0x60;
  write16(frame, at + ipv6.payloadLength, frame.length - at - ipv6.headerBytes);
  frame[at + ipv6.nextHeader] = protocol;
  frame[at + ipv6.hopLimit] = 64;
  frame.set(from.ip as Uint8Array, at + ipv6.source);
  frame.set(to.ip as Uint8Array, at + ipv6.target);
}
