// ICMP (RFC 792) and ICMPv6 (RFC 4443): type, code, checksum (16 bits), then 32 bits that hold identifier and sequence
// for echo and the like, and something else or nothing for errors; then content.
//
// An error quotes the packet that caused it, from its IP header on. A quoted TCP segment carries sequence numbers, so a
// quote is translated like the segment itself (proxy/translate.ts).
//
// Neighbour discovery (RFC 4861) is compared by meaning: a nonce at the end (RFC 7527) is random, and says nothing.

import { read16 } from './checksum.ts';
import type { Refusal } from './ethernet.ts';
import { type FlowKey, family, portsOf } from './flow-key.ts';
import { checkIpv4, fragmentMask, ipProtocol, ipv4, ipv4HeaderBytes } from './ipv4.ts';
import { ExtensionWalk, ipv6 } from './ipv6.ts';

export const icmp = { type: 0, code: 1, checksum: 2, id: 4, headerBytes: 8 } as const;

const errorTypes: readonly number[] = [3, 4, 5, 11, 12];
const queryTypes: readonly number[] = [0, 8, 13, 14, 15, 16, 17, 18];
const neighbourNonce = 14;

export function checkIcmp(at: number, end: number): Refusal | undefined {
  return end - at < icmp.headerBytes ? 'icmp-truncated' : undefined;
}

export function isIcmpError(type: number, isIpv6: boolean): boolean {
  return isIpv6 ? type < 128 : errorTypes.includes(type);
}

/** Whether the 32 bits behind the checksum are identifier and sequence. */
export function isIcmpQuery(type: number, isIpv6: boolean): boolean {
  return isIpv6 ? type === 128 || type === 129 : queryTypes.includes(type);
}

/** Router and neighbour discovery, and redirects. */
export function isNeighbourDiscovery(type: number): boolean {
  return type >= 133 && type <= 137;
}

/** Where what a neighbour discovery message means ends: before a nonce, if that is its last option. */
export function neighbourContentEnd(frame: Uint8Array, at: number, end: number): number {
  const type = frame[at] as number;
  const fixed = type === 133 ? 8 : type === 134 ? 16 : type === 137 ? 40 : 24;
  for (let option = at + fixed; option + 8 <= end; ) {
    const bytes = (frame[option + 1] as number) * 8;
    if (bytes === 0) return end;
    if (frame[option] === neighbourNonce && option + bytes === end) return option;
    option += bytes;
  }
  return end;
}

/** The TCP segment that an error quotes. One is used again for every error. */
export class IcmpQuote {
  /** Where the quoted TCP header begins, and how much of it is there. */
  tcpAt = 0;
  tcpBytes = 0;
  private readonly extensions = new ExtensionWalk();

  /**
   * Looks at the packet quoted at `at`, which ends at `end`. True when it is a TCP segment, or the beginning of one;
   * `key` then names its flow, from its sender's side.
   */
  parse(frame: Uint8Array, at: number, end: number, isIpv6: boolean, key: FlowKey): boolean {
    const isFound = isIpv6 ? this.findInIpv6(frame, at, end) : this.findInIpv4(frame, at, end);
    if (!isFound || this.tcpAt + 8 > end) return false;
    this.tcpBytes = end - this.tcpAt;
    const source = at + (isIpv6 ? ipv6.source : ipv4.source);
    key.readAddresses(frame, source, source + (isIpv6 ? 16 : 4), isIpv6);
    key.ports = portsOf(read16(frame, this.tcpAt), read16(frame, this.tcpAt + 2));
    key.protocol = ((isIpv6 ? family.ipv6 : family.ipv4) << 16) | ipProtocol.tcp;
    return true;
  }

  private findInIpv4(frame: Uint8Array, at: number, end: number): boolean {
    // The quote may be cut short, so that its total length is beyond the frame.
    const refusal = checkIpv4(frame, at);
    if (refusal !== undefined && refusal !== 'ipv4-total-length') return false;
    if (frame[at + ipv4.protocol] !== ipProtocol.tcp || (read16(frame, at + ipv4.fragment) & fragmentMask) !== 0) {
      return false;
    }
    this.tcpAt = at + ipv4HeaderBytes(frame, at);
    return this.tcpAt <= end;
  }

  private findInIpv6(frame: Uint8Array, at: number, end: number): boolean {
    if (end - at < ipv6.headerBytes || (frame[at] as number) >>> 4 !== 6) return false;
    if (this.extensions.walk(frame, at, end) !== undefined || this.extensions.fragmentAt !== 0) return false;
    this.tcpAt = this.extensions.at;
    return this.extensions.protocol === ipProtocol.tcp;
  }
}
