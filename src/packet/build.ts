// Frames from nothing, for tests, simulation and benchmarks: every one with right lengths and checksums.

import { checksum, write16, write32 } from './checksum.ts';
import { ethernet, etherType, writeEthernet } from './ethernet.ts';
import { icmp } from './icmp.ts';
import { ipProtocol, ipv4 } from './ipv4.ts';
import { tcp, tcpFlag } from './tcp.ts';
import { transportChecksum } from './transport-checksum.ts';
import { udp } from './udp.ts';

export interface Address {
  mac: Uint8Array;
  ip: number;
  port: number;
}

export interface Segment {
  sequence: number;
  ack?: number;
  flags: number;
  window?: number;
  /** Raw option bytes, a multiple of four. */
  options?: Uint8Array;
  payload?: Uint8Array;
}

const none = new Uint8Array(0);

export function buildTcp(from: Address, to: Address, segment: Segment): Uint8Array {
  const options = segment.options ?? none;
  const payload = segment.payload ?? none;
  const headerBytes = tcp.headerBytesMin + options.length;
  const frame = buildIpv4(from, to, ipProtocol.tcp, headerBytes + payload.length);
  const at = ethernet.headerBytes + ipv4.headerBytesMin;
  write16(frame, at + tcp.sourcePort, from.port);
  write16(frame, at + tcp.targetPort, to.port);
  write32(frame, at + tcp.sequence, segment.sequence);
  write32(frame, at + tcp.ack, segment.ack ?? 0);
  frame[at + tcp.dataOffset] = (headerBytes / 4) << 4;
  frame[at + tcp.flags] = segment.flags | (segment.ack === undefined ? 0 : tcpFlag.ack);
  write16(frame, at + tcp.window, segment.window ?? 65535);
  frame.set(options, at + tcp.headerBytesMin);
  frame.set(payload, at + headerBytes);
  write16(frame, at + tcp.checksum, transportChecksum(frame, at, frame.length, ipProtocol.tcp));
  return frame;
}

export function buildUdp(from: Address, to: Address, payload: Uint8Array): Uint8Array {
  const frame = buildIpv4(from, to, ipProtocol.udp, udp.headerBytes + payload.length);
  const at = ethernet.headerBytes + ipv4.headerBytesMin;
  write16(frame, at + udp.sourcePort, from.port);
  write16(frame, at + udp.targetPort, to.port);
  write16(frame, at + udp.length, udp.headerBytes + payload.length);
  frame.set(payload, at + udp.headerBytes);
  write16(frame, at + udp.checksum, transportChecksum(frame, at, frame.length, ipProtocol.udp) || 0xffff);
  return frame;
}

export function buildIcmpEcho(from: Address, to: Address, echo: { reply: boolean; id: number; sequence: number }) {
  const frame = buildIpv4(from, to, ipProtocol.icmp, icmp.headerBytes + 8);
  const at = ethernet.headerBytes + ipv4.headerBytesMin;
  frame[at + icmp.type] = echo.reply ? 0 : 8;
  write16(frame, at + icmp.id, echo.id);
  write16(frame, at + icmp.id + 2, echo.sequence);
  write16(frame, at + icmp.checksum, checksum(frame, at, frame.length));
  return frame;
}

function buildIpv4(from: Address, to: Address, protocol: number, bytes: number): Uint8Array {
  const at = ethernet.headerBytes;
  const frame = new Uint8Array(at + ipv4.headerBytesMin + bytes);
  writeEthernet(frame, to.mac, from.mac, etherType.ipv4);
  frame[at] = 0x45;
  write16(frame, at + ipv4.totalLength, ipv4.headerBytesMin + bytes);
  write16(frame, at + ipv4.fragment, 0x4000);
  frame[at + 8] = 64;
  frame[at + ipv4.protocol] = protocol;
  write32(frame, at + ipv4.source, from.ip);
  write32(frame, at + ipv4.target, to.ip);
  write16(frame, at + ipv4.checksum, checksum(frame, at, at + ipv4.headerBytesMin));
  return frame;
}
