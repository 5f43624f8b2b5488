// One frame, looked at once. `parse` validates and fills the fields; nothing is copied and nothing is thrown. One view
// is used again for every frame, so that the hot path allocates nothing.
//
//   kind   tcp | udp | icmp | arp    understood, by the rules of that protocol
//          ipv4                      any other IPv4 packet: other protocols, fragments
//          other                     everything else: IPv6, VLAN tags, and malformed frames (`refusal` says why)
//
// [contentFrom, contentTo) is what is compared of a datagram; four numbers (`keyA`..`keyD`) name its flow. For `other`
// the content is the whole frame. IP identification, time to live and checksums are never compared: they differ
// between two equal guests, or follow from the rest.

import { arp, checkArp } from './arp.ts';
import { read16, read32 } from './checksum.ts';
import { ethernet, etherType, type Refusal } from './ethernet.ts';
import { checkIcmp, icmp } from './icmp.ts';
import { checkIpv4, fragmentMask, ipProtocol, ipv4, ipv4HeaderBytes } from './ipv4.ts';
import { checkTcp, tcp, tcpFlag, tcpHeaderBytes } from './tcp.ts';
import { checkUdp, udp } from './udp.ts';

export type FrameKind = 'tcp' | 'udp' | 'icmp' | 'arp' | 'ipv4' | 'other';

const empty = new Uint8Array(0);

export class FrameView {
  frame: Uint8Array = empty;
  kind: FrameKind = 'other';
  refusal: Refusal | undefined = undefined;

  sourceIp = 0;
  targetIp = 0;
  /** Offset of the IP header, of what it carries, and of the end of the IP packet (padding lies behind). */
  ipAt: number = ethernet.headerBytes;
  transportAt = 0;
  endAt = 0;
  sourcePort = 0;
  targetPort = 0;

  /** TCP only. */
  sequence = 0;
  ack = 0;
  flags = 0;
  window = 0;
  payloadAt = 0;
  payloadBytes = 0;

  /** Everything but TCP. */
  contentFrom = 0;
  contentTo = 0;
  keyA = 0;
  keyB = 0;
  keyC = 0;
  keyD = 0;

  parse(frame: Uint8Array): this {
    this.frame = frame;
    this.refusal = this.classify(frame);
    if (this.refusal !== undefined) this.takeWhole();
    return this;
  }

  get isSyn(): boolean {
    return (this.flags & tcpFlag.syn) !== 0;
  }

  get isFin(): boolean {
    return (this.flags & tcpFlag.fin) !== 0;
  }

  get isReset(): boolean {
    return (this.flags & tcpFlag.rst) !== 0;
  }

  get hasAck(): boolean {
    return (this.flags & tcpFlag.ack) !== 0;
  }

  private classify(frame: Uint8Array): Refusal | undefined {
    if (frame.length < ethernet.headerBytes) return 'ethernet-truncated';
    const type = read16(frame, ethernet.type);
    if (type === etherType.ipv4) return this.classifyIpv4(frame);
    if (type === etherType.arp) return this.classifyArp(frame);
    this.takeWhole();
    return undefined;
  }

  private classifyIpv4(frame: Uint8Array): Refusal | undefined {
    const at = ethernet.headerBytes;
    const refusal = checkIpv4(frame, at);
    if (refusal !== undefined) return refusal;
    this.sourceIp = read32(frame, at + ipv4.source);
    this.targetIp = read32(frame, at + ipv4.target);
    this.transportAt = at + ipv4HeaderBytes(frame, at);
    this.endAt = at + read16(frame, at + ipv4.totalLength);
    const protocol = frame[at + ipv4.protocol] as number;
    const fragment = read16(frame, at + ipv4.fragment) & fragmentMask;
    if (fragment !== 0) return this.takeIpv4(protocol | (fragment << 8));
    if (protocol === ipProtocol.tcp) return this.takeTcp(frame, this.transportAt);
    if (protocol === ipProtocol.udp) return this.takeUdp(frame, this.transportAt);
    if (protocol === ipProtocol.icmp) return this.takeIcmp(frame, this.transportAt);
    return this.takeIpv4(protocol);
  }

  private takeTcp(frame: Uint8Array, at: number): Refusal | undefined {
    const refusal = checkTcp(frame, at, this.endAt);
    if (refusal !== undefined) return refusal;
    this.kind = 'tcp';
    this.sourcePort = read16(frame, at + tcp.sourcePort);
    this.targetPort = read16(frame, at + tcp.targetPort);
    this.sequence = read32(frame, at + tcp.sequence);
    this.ack = read32(frame, at + tcp.ack);
    this.flags = frame[at + tcp.flags] as number;
    this.window = read16(frame, at + tcp.window);
    this.payloadAt = at + tcpHeaderBytes(frame, at);
    this.payloadBytes = this.endAt - this.payloadAt;
    return undefined;
  }

  private takeUdp(frame: Uint8Array, at: number): Refusal | undefined {
    const refusal = checkUdp(frame, at, this.endAt);
    if (refusal !== undefined) return refusal;
    this.sourcePort = read16(frame, at + udp.sourcePort);
    this.targetPort = read16(frame, at + udp.targetPort);
    this.takeDatagram('udp', (this.sourcePort << 16) | this.targetPort, ipProtocol.udp);
    this.contentFrom = at + udp.headerBytes;
    this.contentTo = at + read16(frame, at + udp.length);
    return undefined;
  }

  private takeIcmp(frame: Uint8Array, at: number): Refusal | undefined {
    const refusal = checkIcmp(at, this.endAt);
    if (refusal !== undefined) return refusal;
    const typeAndCode = read16(frame, at + icmp.type);
    this.takeDatagram('icmp', (typeAndCode << 16) | read16(frame, at + icmp.id), ipProtocol.icmp);
    this.contentFrom = at + icmp.id;
    this.contentTo = this.endAt;
    return undefined;
  }

  private takeIpv4(protocolAndFragment: number): undefined {
    this.takeDatagram('ipv4', protocolAndFragment, 0);
    this.contentFrom = this.transportAt;
    this.contentTo = this.endAt;
    return undefined;
  }

  private takeDatagram(kind: FrameKind, keyC: number, protocol: number): void {
    this.kind = kind;
    this.keyA = this.sourceIp;
    this.keyB = this.targetIp;
    this.keyC = keyC >>> 0;
    this.keyD = (etherType.ipv4 << 8) | protocol;
  }

  /** A request's target MAC is not compared: it has no meaning, and guests leave anything in it. */
  private classifyArp(frame: Uint8Array): Refusal | undefined {
    const at = ethernet.headerBytes;
    const refusal = checkArp(frame, at);
    if (refusal !== undefined) return refusal;
    const operation = read16(frame, at + arp.operation);
    this.kind = 'arp';
    this.keyA = read32(frame, at + arp.senderIp);
    this.keyB = read32(frame, at + arp.targetIp);
    this.keyC = operation;
    this.keyD = etherType.arp << 8;
    this.contentFrom = at + arp.senderMac;
    this.contentTo = operation === arp.request ? at + arp.targetMac : at + arp.headerBytes;
    return undefined;
  }

  /** Both MAC addresses and the type name the flow; the whole frame is the content. */
  takeWhole(): void {
    const frame = this.frame;
    const hasHeader = frame.length >= ethernet.headerBytes;
    this.kind = 'other';
    this.keyA = hasHeader ? read32(frame, 0) : 0;
    this.keyB = hasHeader ? read32(frame, 4) : 0;
    this.keyC = hasHeader ? read32(frame, 8) : 0;
    this.keyD = hasHeader ? read16(frame, ethernet.type) : 0x10000;
    this.contentFrom = 0;
    this.contentTo = frame.length;
  }
}
