// One frame, looked at once. `parse` validates and fills the fields; nothing is copied and nothing is thrown. One view
// is used again for every frame, so that the hot path allocates nothing.
//
//   kind   tcp | udp | icmp | arp | neighbour    understood, by the rules of that protocol
//          fragment                              a piece of an IP packet: proxy/fragments.ts puts them together
//          ip                                    any other IP packet: other protocols, what may not be rewritten
//          other                                 everything else, and malformed frames (`refusal` says why)
//
// IPv4 and IPv6, behind up to two VLAN tags and the mark of a card, in one form: the code above does not tell them
// apart.
//
// [contentFrom, contentTo) is what is compared of a datagram; `key` names its flow. For `other` the content is the
// whole frame. IP identification, time to live, flow label and checksums are never compared: they differ between two
// equal guests, or follow from the rest. The content of a datagram with IPv4 options or IPv6 extension headers begins
// at these; that of a UDP datagram with bytes behind its own length (RFC 9868) at that length, and reaches to the end
// of the packet. What lies behind the packet (`endAt`) is padding, and no content.

import { arp, checkArp } from './arp.ts';
import { cardMarkBytes, cardOf } from './card.ts';
import { read16, read32, sumWords } from './checksum.ts';
import { ethernet, etherType, type Refusal } from './ethernet.ts';
import { FlowKey, family } from './flow-key.ts';
import { checkIcmp, icmp, isIcmpError, isIcmpQuery, isNeighbourDiscovery, neighbourContentEnd } from './icmp.ts';
import { checkIpv4, fragmentMask, ipProtocol, ipv4, ipv4HeaderBytes, moreFragments } from './ipv4.ts';
import { checkIpv6, ExtensionWalk, ipv6 } from './ipv6.ts';
import { tagsMax } from './limits.ts';
import { checkTcp, tcp, tcpFlag, tcpHeaderBytes, timestampsAt } from './tcp.ts';
import { checkUdp, udp } from './udp.ts';

export type FrameKind = 'tcp' | 'udp' | 'icmp' | 'arp' | 'neighbour' | 'fragment' | 'ip' | 'other';

const empty = new Uint8Array(0);

/** Beside the protocol in a flow's name: the datagrams end before their packets do. */
const surplusMark = 1 << 31;

export class FrameView {
  frame: Uint8Array = empty;
  kind: FrameKind = 'other';
  refusal: Refusal | undefined = undefined;
  /** Source and target of the frame, protocol and tags. */
  readonly key = new FlowKey();

  /** Offset of the IP header, of what it carries, and of the end of the IP packet (padding lies behind). */
  ipAt: number = ethernet.headerBytes;
  transportAt = 0;
  endAt = 0;
  isIpv6 = false;
  /** What the IP packet carries. */
  ipProtocol = 0;

  /** TCP only. */
  sequence = 0;
  ack = 0;
  flags = 0;
  window = 0;
  payloadAt = 0;
  payloadBytes = 0;
  /** Offset of TSval, 0 without timestamps. */
  timestampsAt = 0;

  /** Everything but TCP. */
  contentFrom = 0;
  contentTo = 0;
  /** Offset of the packet that an ICMP error quotes; 0 for anything else. */
  quoteAt = 0;

  /**
   * Fragments only: the packet they belong to, their place in it, and where the number of the protocol is written
   * (IPv6:
   *  of the fragment header, which is the 8 bytes before `transportAt`).
   */
  fragmentId = 0;
  fragmentOffset = 0;
  hasMoreFragments = false;
  nextHeaderAt = 0;

  private readonly extensions = new ExtensionWalk();

  parse(frame: Uint8Array): this {
    this.frame = frame;
    this.quoteAt = 0;
    this.refusal = this.classify(frame);
    if (this.refusal !== undefined) this.takeWhole();
    return this;
  }

  get sourcePort(): number {
    return this.key.guestPort;
  }

  get targetPort(): number {
    return this.key.clientPort;
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

  /** TSval and TSecr; only with timestamps. */
  get timestamp(): number {
    return read32(this.frame, this.timestampsAt);
  }

  private classify(frame: Uint8Array): Refusal | undefined {
    if (frame.length < ethernet.headerBytes) return 'ethernet-truncated';
    let type = read16(frame, ethernet.type);
    let at: number = ethernet.headerBytes;
    const card = type === etherType.card ? cardOf(frame) : 0;
    if (card > 0) {
      type = read16(frame, at + 2);
      at += cardMarkBytes;
    }
    this.key.tags = card << 28;
    for (let count = 1; type === etherType.vlan || type === etherType.stackedVlan; count += 1) {
      if (frame.length < at + 4) return 'vlan-truncated';
      if (count > tagsMax) {
        this.takeWhole();
        return undefined;
      }
      this.key.tags = (card << 28) | (count << 24) | ((this.key.tags & 0xfff) << 12) | (read16(frame, at) & 0xfff);
      type = read16(frame, at + 2);
      at += 4;
    }
    this.ipAt = at;
    if (type === etherType.ipv4) return this.classifyIpv4(frame, at);
    if (type === etherType.ipv6) return this.classifyIpv6(frame, at);
    if (type === etherType.arp) return this.classifyArp(frame, at);
    this.takeWhole();
    return undefined;
  }

  private classifyIpv4(frame: Uint8Array, at: number): Refusal | undefined {
    const refusal = checkIpv4(frame, at);
    if (refusal !== undefined) return refusal;
    this.isIpv6 = false;
    this.key.readAddresses(frame, at + ipv4.source, at + ipv4.target, false);
    this.transportAt = at + ipv4HeaderBytes(frame, at);
    this.endAt = at + read16(frame, at + ipv4.totalLength);
    this.ipProtocol = frame[at + ipv4.protocol] as number;
    const fragment = read16(frame, at + ipv4.fragment);
    if ((fragment & fragmentMask) === 0) return this.classifyTransport(frame, this.transportAt);
    this.fragmentId = read16(frame, at + ipv4.id);
    this.nextHeaderAt = at + ipv4.protocol;
    this.takeFragment((fragment & 0x1fff) * 8, (fragment & moreFragments) !== 0);
    return undefined;
  }

  private classifyIpv6(frame: Uint8Array, at: number): Refusal | undefined {
    const refusal = checkIpv6(frame, at);
    if (refusal !== undefined) return refusal;
    this.isIpv6 = true;
    this.key.readAddresses(frame, at + ipv6.source, at + ipv6.target, true);
    this.endAt = at + ipv6.headerBytes + read16(frame, at + ipv6.payloadLength);
    const { extensions } = this;
    const problem = extensions.walk(frame, at, this.endAt);
    if (problem !== undefined) return problem;
    this.transportAt = extensions.at;
    this.ipProtocol = extensions.protocol;
    this.nextHeaderAt = extensions.nextHeaderAt;
    const { fragmentAt } = extensions;
    if (fragmentAt === 0) return this.classifyTransport(frame, this.transportAt);
    const field = read16(frame, fragmentAt + 2);
    this.fragmentId = read32(frame, fragmentAt + 4) | 0;
    this.takeFragment(field & 0xfff8, (field & 1) !== 0);
    return undefined;
  }

  private classifyTransport(frame: Uint8Array, at: number): Refusal | undefined {
    switch (this.ipProtocol) {
      case ipProtocol.tcp:
        return this.takeTcp(frame, at);
      case ipProtocol.udp:
        return this.takeUdp(frame, at);
      case ipProtocol.icmp:
      case ipProtocol.icmpv6:
        if ((this.ipProtocol === ipProtocol.icmpv6) === this.isIpv6) return this.takeIcmp(frame, at);
        break;
    }
    this.takeDatagram('ip', 0);
    return undefined;
  }

  private takeTcp(frame: Uint8Array, at: number): Refusal | undefined {
    const refusal = checkTcp(frame, at, this.endAt);
    if (refusal !== undefined) return refusal;
    this.kind = 'tcp';
    this.key.ports = read32(frame, at + tcp.sourcePort) | 0;
    this.key.protocol = ((this.isIpv6 ? family.ipv6 : family.ipv4) << 16) | ipProtocol.tcp;
    this.sequence = read32(frame, at + tcp.sequence);
    this.ack = read32(frame, at + tcp.ack);
    this.flags = frame[at + tcp.flags] as number;
    this.window = read16(frame, at + tcp.window);
    this.payloadAt = at + tcpHeaderBytes(frame, at);
    this.payloadBytes = this.endAt - this.payloadAt;
    this.timestampsAt = timestampsAt(frame, at);
    return undefined;
  }

  private takeUdp(frame: Uint8Array, at: number): Refusal | undefined {
    const refusal = checkUdp(frame, at, this.endAt);
    if (refusal !== undefined) return refusal;
    this.takeDatagram('udp', read32(frame, at + udp.sourcePort) | 0);
    const hasSurplus = at + read16(frame, at + udp.length) < this.endAt;
    // Where the datagram ends within the packet is then a part of what it says, and of the flow's name.
    if (hasSurplus) this.key.protocol |= surplusMark;
    if (!this.hasOptions) this.contentFrom = at + (hasSurplus ? udp.length : udp.headerBytes);
    return undefined;
  }

  private takeIcmp(frame: Uint8Array, at: number): Refusal | undefined {
    const refusal = checkIcmp(at, this.endAt);
    if (refusal !== undefined) return refusal;
    const { isIpv6 } = this;
    const type = frame[at + icmp.type] as number;
    const id = isIcmpQuery(type, isIpv6) ? read16(frame, at + icmp.id) : 0;
    const isNeighbour = isIpv6 && isNeighbourDiscovery(type);
    this.takeDatagram(isNeighbour ? 'neighbour' : 'icmp', (read16(frame, at + icmp.type) << 16) | id);
    if (!this.hasOptions) this.contentFrom = at + icmp.id;
    this.contentTo = isNeighbour ? neighbourContentEnd(frame, at, this.endAt) : this.endAt;
    if (isIcmpError(type, isIpv6)) this.quoteAt = at + icmp.headerBytes;
    return undefined;
  }

  /** The flow of a fragment is the packet that it is a piece of. */
  private takeFragment(offset: number, hasMore: boolean): void {
    this.fragmentOffset = offset;
    this.hasMoreFragments = hasMore;
    this.takeDatagram('fragment', this.fragmentId);
  }

  private takeDatagram(kind: FrameKind, ports: number): void {
    this.kind = kind;
    this.key.ports = ports;
    this.key.protocol = ((this.isIpv6 ? family.ipv6 : family.ipv4) << 16) | this.ipProtocol;
    this.contentFrom = this.transportAt;
    this.contentTo = this.endAt;
    if (kind === 'fragment' || !this.hasOptions) return;
    const { optionsAt } = this;
    // Never 0 for a flow with options: the count of their words is in it.
    const sum = sumWords(this.frame, optionsAt, this.transportAt, this.transportAt - optionsAt);
    this.key.protocol |= (sum & 0x7f) << 24;
    this.key.ports ^= sum << 7;
    this.contentFrom = optionsAt;
  }

  /** Where IPv4 options or IPv6 extension headers stand, when there are any. */
  get optionsAt(): number {
    return this.ipAt + (this.isIpv6 ? ipv6.headerBytes : ipv4.headerBytesMin);
  }

  get hasOptions(): boolean {
    return this.transportAt > this.optionsAt;
  }

  /** A request's target MAC is not compared: it has no meaning, and guests leave anything in it. */
  private classifyArp(frame: Uint8Array, at: number): Refusal | undefined {
    const refusal = checkArp(frame, at);
    if (refusal !== undefined) return refusal;
    const operation = read16(frame, at + arp.operation);
    this.kind = 'arp';
    this.key.readAddresses(frame, at + arp.senderIp, at + arp.targetIp, false);
    this.key.ports = operation;
    this.key.protocol = etherType.arp;
    this.endAt = at + arp.headerBytes;
    this.contentFrom = at + arp.senderMac;
    this.contentTo = operation === arp.request ? at + arp.targetMac : this.endAt;
    return undefined;
  }

  /**
   * The first fragment of a TCP segment has its header, and so all that is translated of it. True when this is one: the
   * view is then of the segment, as far as it is here.
   */
  takeFirstFragment(): boolean {
    if (this.kind !== 'fragment' || this.fragmentOffset !== 0 || this.ipProtocol !== ipProtocol.tcp) return false;
    return this.takeTcp(this.frame, this.transportAt) === undefined;
  }

  /** A TCP segment that came in fragments is compared like any other protocol: it cannot be rewritten. */
  takeIp(): void {
    this.takeDatagram('ip', 0);
  }

  /** Both MAC addresses and the type name the flow; the whole frame is the content. */
  takeWhole(): void {
    const { frame, key } = this;
    const hasHeader = frame.length >= ethernet.headerBytes;
    this.kind = 'other';
    key.a0 = hasHeader ? read32(frame, 0) | 0 : 0;
    key.a1 = hasHeader ? read32(frame, 4) | 0 : 0;
    key.a2 = hasHeader ? read32(frame, 8) | 0 : 0;
    key.a3 = 0;
    key.b0 = 0;
    key.b1 = 0;
    key.b2 = 0;
    key.b3 = 0;
    key.ports = hasHeader ? read16(frame, ethernet.type) : -1;
    key.protocol = 0;
    key.tags = 0;
    this.quoteAt = 0;
    this.endAt = frame.length;
    this.contentFrom = 0;
    this.contentTo = frame.length;
  }
}
