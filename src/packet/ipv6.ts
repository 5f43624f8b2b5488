// The IPv6 header (RFC 8200), offsets from its start, and the extension headers behind it:
//
//    0                   4                6             7           8        24       40
//    | ver, class, label | payload length | next header | hop limit | source | target | extension headers, payload ...
//
//    extension header    0             1                      fragment header   0             2              4    8
//                        | next header | length / 8 - 1 | ... |                 | next header | offset, more | id |
//
// The flow label is never compared: guests draw it at random. A packet with a routing header that is not at its last
// segment, or with an authentication header, may not be rewritten: it is compared as a whole, whatever it carries.

import { read16 } from './checksum.ts';
import type { Refusal } from './ethernet.ts';
import { extensionsMax } from './limits.ts';

export const ipv6 = { payloadLength: 4, nextHeader: 6, hopLimit: 7, source: 8, target: 24, headerBytes: 40 } as const;

export const extension = { hopByHop: 0, routing: 43, fragment: 44, authentication: 51, destination: 60 } as const;

const fragmentHeaderBytes = 8;

export function checkIpv6(frame: Uint8Array, at: number): Refusal | undefined {
  if (frame.length < at + ipv6.headerBytes) return 'ipv6-truncated';
  if ((frame[at] as number) >>> 4 !== 6) return 'ipv6-version';
  const bytes = read16(frame, at + ipv6.payloadLength);
  return bytes === 0 || at + ipv6.headerBytes + bytes > frame.length ? 'ipv6-payload-length' : undefined;
}

/** Where the extension headers of one packet lead to. One is used again for every packet. */
export class ExtensionWalk {
  /** The protocol that is reached, and where it begins. */
  protocol = 0;
  at = 0;
  /** Where the number of what stands at `at` is written; of a fragment, that of its fragment header. */
  nextHeaderAt = 0;
  /** Offset of the fragment header of a fragment; 0 when the packet is whole. */
  fragmentAt = 0;

  walk(frame: Uint8Array, ipAt: number, endAt: number): Refusal | undefined {
    this.nextHeaderAt = ipAt + ipv6.nextHeader;
    this.protocol = frame[this.nextHeaderAt] as number;
    this.at = ipAt + ipv6.headerBytes;
    this.fragmentAt = 0;
    for (let count = 0; this.isExtension(frame, endAt); count += 1) {
      if (count === extensionsMax || this.at + 8 > endAt) return 'ipv6-extension';
      const isFragment = this.protocol === extension.fragment;
      if (isFragment && (read16(frame, this.at + 2) & 0xfff9) !== 0) this.fragmentAt = this.at;
      const bytes = isFragment ? fragmentHeaderBytes : 8 + (frame[this.at + 1] as number) * 8;
      this.protocol = frame[this.at] as number;
      if (this.fragmentAt === 0) this.nextHeaderAt = this.at;
      this.at += bytes;
      if (this.at > endAt) return 'ipv6-extension';
      if (this.fragmentAt !== 0) return undefined;
    }
    return undefined;
  }

  /** Whether what stands here is a header to step over. */
  private isExtension(frame: Uint8Array, endAt: number): boolean {
    switch (this.protocol) {
      case extension.hopByHop:
      case extension.destination:
      case extension.fragment:
        return true;
      case extension.routing:
        return this.at + 8 > endAt || frame[this.at + 3] === 0;
      default:
        return false;
    }
  }
}

/** The text of an address (RFC 5952) given as four words. */
export function ipv6Text(words: readonly [number, number, number, number]): string {
  const groups = words.flatMap((word) => [word >>> 16, word & 0xffff]);
  const run = longestZeros(groups);
  const hex = (part: number[]) => part.map((group) => group.toString(16)).join(':');
  if (run.length < 2) return hex(groups);
  return `${hex(groups.slice(0, run.from))}::${hex(groups.slice(run.from + run.length))}`;
}

function longestZeros(groups: readonly number[]): { from: number; length: number } {
  let best = { from: 0, length: 0 };
  for (let from = 0; from < groups.length; from += 1) {
    let to = from;
    while (groups[to] === 0) to += 1;
    if (to - from > best.length) best = { from, length: to - from };
  }
  return best;
}

/** The 16 bytes of an address in text; undefined when the text is none. IPv4 endings are not taken. */
export function parseIpv6(text: string): Uint8Array | undefined {
  const halves = text.split('::');
  if (halves.length > 2) return undefined;
  const groups = halves.map((half) => (half === '' ? [] : half.split(':')));
  const [front = [], back = []] = groups;
  const missing = 8 - front.length - back.length;
  if (halves.length === 2 ? missing < 1 : missing !== 0) return undefined;
  const all = [...front, ...Array<string>(missing).fill('0'), ...back];
  if (!all.every((group) => /^[0-9a-fA-F]{1,4}$/.test(group))) return undefined;
  return Uint8Array.from(all.flatMap((group) => [Number.parseInt(group, 16) >>> 8, Number.parseInt(group, 16) & 255]));
}
