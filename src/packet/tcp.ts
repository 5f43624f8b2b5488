// The TCP header (RFC 9293), offsets from its start:
//
//    0             2             4          8     12              13      14       16         18       20
//    | source port | target port | sequence | ack | data offset   | flags | window | checksum | urgent | options ...
//
// A segment must carry one of SYN, ACK and RST and no contradiction (SYN with FIN or RST), or it is refused: it is then
// compared as a whole, because none of our rules says what it means.

import { read16, read32 } from './checksum.ts';
import type { Refusal } from './ethernet.ts';

export const tcp = {
  sourcePort: 0,
  targetPort: 2,
  sequence: 4,
  ack: 8,
  dataOffset: 12,
  flags: 13,
  window: 14,
  checksum: 16,
  urgent: 18,
  headerBytesMin: 20,
} as const;

export const tcpFlag = { fin: 1, syn: 2, rst: 4, psh: 8, ack: 16, urg: 32 } as const;

const option = { end: 0, nop: 1, mss: 2, windowScale: 3, sackPermitted: 4, sack: 5, timestamps: 8 } as const;

export function checkTcp(frame: Uint8Array, at: number, end: number): Refusal | undefined {
  if (end - at < tcp.headerBytesMin) return 'tcp-truncated';
  const headerBytes = tcpHeaderBytes(frame, at);
  if (headerBytes < tcp.headerBytesMin || at + headerBytes > end) return 'tcp-data-offset';
  const flags = frame[at + tcp.flags] as number;
  if ((flags & (tcpFlag.syn | tcpFlag.ack | tcpFlag.rst)) === 0) return 'tcp-flags';
  const contradiction = (flags & tcpFlag.syn) !== 0 && (flags & (tcpFlag.fin | tcpFlag.rst)) !== 0;
  return contradiction ? 'tcp-flags' : undefined;
}

export function tcpHeaderBytes(frame: Uint8Array, at: number): number {
  return ((frame[at + tcp.dataOffset] as number) >>> 4) * 4;
}

/** What a SYN negotiates. `kinds` has bit k set for every option of kind k below 31; bit 31 for any other. */
export interface SynOptions {
  kinds: number;
  mss: number;
  /** undefined when the option is absent: the window is then not scaled. */
  windowScale: number | undefined;
}

/** Calls `visit` with kind, offset and length of every well-formed option in [from, to); stops at the first bad one. */
export function forEachOption(
  frame: Uint8Array,
  from: number,
  to: number,
  visit: (kind: number, at: number, length: number) => void,
): void {
  let at = from;
  while (at < to) {
    const kind = frame[at] as number;
    if (kind === option.end) return;
    const length = kind === option.nop ? 1 : at + 1 < to ? (frame[at + 1] as number) : 0;
    if (length < 1 || (kind !== option.nop && length < 2) || at + length > to) return;
    if (kind !== option.nop) visit(kind, at, length);
    at += length;
  }
}

export function synOptions(frame: Uint8Array, tcpAt: number): SynOptions {
  const options: SynOptions = { kinds: 0, mss: 536, windowScale: undefined };
  forEachOption(frame, tcpAt + tcp.headerBytesMin, tcpAt + tcpHeaderBytes(frame, tcpAt), (kind, at, length) => {
    options.kinds |= 1 << Math.min(kind, 31);
    if (kind === option.mss && length === 4) options.mss = read16(frame, at + 2);
    else if (kind === option.windowScale && length === 3) options.windowScale = Math.min(frame[at + 2] as number, 14);
  });
  return options;
}

/**
 * What a SYN negotiates, for comparing: its header, of which everything else is 0. Flags (ECN, RFC 3168), reserved bits
 * and options stay, and of the timestamps that they are there. One byte a character.
 */
export function synText(frame: Uint8Array, tcpAt: number): string {
  const header = Buffer.from(frame.subarray(tcpAt, tcpAt + tcpHeaderBytes(frame, tcpAt)));
  header.fill(0, 0, tcp.dataOffset);
  header.fill(0, tcp.window, tcp.headerBytesMin);
  header[tcp.flags] = (header[tcp.flags] as number) & negotiatingFlags;
  const times = timestampsAt(header, 0);
  if (times !== 0) header.fill(0, times, times + 8);
  return header.toString('latin1');
}

/** ECE and CWR. */
const negotiatingFlags = 0xc0;

/** How guests lay out a timestamps option: two NOPs before it. */
const paddedTimestamps = 0x0101080a;

/** Where TSval stands (RFC 7323), TSecr behind it; 0 when the segment carries no timestamps. */
export function timestampsAt(frame: Uint8Array, tcpAt: number): number {
  const end = tcpAt + tcpHeaderBytes(frame, tcpAt);
  let at = tcpAt + tcp.headerBytesMin;
  if (at + 12 <= end && read32(frame, at) === paddedTimestamps) return at + 4;
  while (at < end) {
    const kind = frame[at] as number;
    if (kind === option.end) return 0;
    if (kind === option.nop) {
      at += 1;
      continue;
    }
    const length = at + 1 < end ? (frame[at + 1] as number) : 0;
    if (length < 2 || at + length > end) return 0;
    if (kind === option.timestamps && length === 10) return at + 2;
    at += length;
  }
  return 0;
}

/**
 * Whether the header of a segment that is no SYN carries only what is understood: timestamps, SACK blocks and padding.
 * Any other option may mean anything.
 */
export function hasPlainOptions(frame: Uint8Array, tcpAt: number): boolean {
  const end = tcpAt + tcpHeaderBytes(frame, tcpAt);
  let at = tcpAt + tcp.headerBytesMin;
  if (at === end || (at + 12 === end && read32(frame, at) === paddedTimestamps)) return true;
  while (at < end) {
    const kind = frame[at] as number;
    if (kind === option.end) return frame.subarray(at, end).every((byte) => byte === 0);
    const length = kind === option.nop ? 1 : at + 1 < end ? (frame[at + 1] as number) : 0;
    const isTimestamps = kind === option.timestamps && length === 10;
    const isSack = kind === option.sack && length > 2 && length % 8 === 2;
    if (kind !== option.nop && !isTimestamps && !isSack) return false;
    at += length;
  }
  return at === end;
}

/** Calls `visit` with the offset of both edges of every SACK block of the segment. */
export function forEachSackEdge(frame: Uint8Array, tcpAt: number, visit: (at: number) => void): void {
  const end = tcpAt + tcpHeaderBytes(frame, tcpAt);
  forEachOption(frame, tcpAt + tcp.headerBytesMin, end, (kind, at, length) => {
    if (kind !== option.sack) return;
    for (let edge = at + 2; edge + 4 <= at + length; edge += 4) visit(edge);
  });
}
