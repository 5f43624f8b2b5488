// New frames out of the primary's: cut, clamped, or an ACK of its own. All lengths and checksums of what comes out are
// right. One scratch buffer is used again for every frame that is made: the result is valid until the next call. A
// frame that only changes a few fields is changed where it lies, with its checksum updated: nothing is copied.

import { checksum, read16, replace16, replace32, write16, write32 } from '../../packet/checksum.ts';
import type { FrameView } from '../../packet/frame-view.ts';
import { ipProtocol, ipv4, ipv4HeaderBytes } from '../../packet/ipv4.ts';
import { ipv6 } from '../../packet/ipv6.ts';
import { tcp, tcpFlag } from '../../packet/tcp.ts';
import { transportChecksum } from '../../packet/transport-checksum.ts';

/** The fields of a TCP segment that are needed to send it, or a part of it. */
export interface SegmentParts {
  frame: Uint8Array;
  ipAt: number;
  transportAt: number;
  payloadAt: number;
  payloadBytes: number;
  sequence: number;
  ack: number;
  flags: number;
  window: number;
  /** Offset of TSval and its value; the offset is 0 without timestamps. */
  timestampsAt: number;
  timestamp: number;
}

/** What a frame says that leaves. */
export interface Saying {
  ack: number;
  window: number;
  timestamp: number;
}

const scratch = Buffer.alloc(65_536 + 64);

/** Makes the segment say something else, where it lies. `parts` goes on to hold what the guest said. */
export function rewriteInPlace(parts: SegmentParts, saying: Saying): Uint8Array {
  const { frame } = parts;
  const at = parts.transportAt;
  const sum = at + tcp.checksum;
  if (saying.ack !== parts.ack) replace32(frame, sum, at, at + tcp.ack, saying.ack);
  if (saying.window !== parts.window) replace16(frame, sum, at + tcp.window, saying.window);
  const tsAt = parts.timestampsAt;
  if (tsAt !== 0 && saying.timestamp !== parts.timestamp) replace32(frame, sum, at, tsAt, saying.timestamp);
  return frame;
}

/** Bytes [from, to) of the segment's payload as a segment of its own. PSH and FIN stay only with the last part. */
export function cutSegment(parts: SegmentParts, from: number, to: number, fin: boolean, saying: Saying): Uint8Array {
  const payload = parts.frame.subarray(parts.payloadAt + from, parts.payloadAt + to);
  scratch.set(parts.frame.subarray(0, parts.payloadAt));
  scratch.set(payload, parts.payloadAt);
  const length = parts.payloadAt + payload.length;
  const at = parts.transportAt;
  const cleared = (to < parts.payloadBytes ? tcpFlag.psh | tcpFlag.fin : 0) | (fin ? 0 : tcpFlag.fin);
  write32(scratch, at + tcp.sequence, (parts.sequence + from) >>> 0);
  scratch[at + tcp.flags] = parts.flags & ~cleared;
  if (from > 0 && (parts.flags & tcpFlag.urg) !== 0) moveUrgent(at, from);
  return finish(parts, length, saying);
}

/** The urgent pointer counts from the segment's sequence number, which lies `from` further now. */
function moveUrgent(at: number, from: number): void {
  const pointer = read16(scratch, at + tcp.urgent) - from;
  write16(scratch, at + tcp.urgent, Math.max(0, pointer));
  if (pointer <= 0) scratch[at + tcp.flags] = (scratch[at + tcp.flags] as number) & ~tcpFlag.urg;
}

/** A pure ACK made from the headers of `parts`. */
export function pureAck(parts: SegmentParts, sequence: number, saying: Saying): Uint8Array {
  scratch.set(parts.frame.subarray(0, parts.payloadAt));
  write32(scratch, parts.transportAt + tcp.sequence, sequence);
  scratch[parts.transportAt + tcp.flags] = tcpFlag.ack;
  return finish(parts, parts.payloadAt, saying);
}

function finish(parts: SegmentParts, length: number, saying: Saying): Uint8Array {
  const { ipAt, transportAt: at } = parts;
  write32(scratch, at + tcp.ack, saying.ack);
  write16(scratch, at + tcp.window, saying.window);
  if (parts.timestampsAt !== 0) write32(scratch, parts.timestampsAt, saying.timestamp);
  const frame = scratch.subarray(0, length);
  finishIp(frame, ipAt);
  write16(frame, at + tcp.checksum, transportChecksum(frame, ipAt, at, length, ipProtocol.tcp));
  return frame;
}

/** Length and header checksum of an IP packet that reaches to the end of `frame`. */
export function finishIp(frame: Uint8Array, ipAt: number): void {
  if ((frame[ipAt] as number) >>> 4 === 6) {
    write16(frame, ipAt + ipv6.payloadLength, frame.length - ipAt - ipv6.headerBytes);
    return;
  }
  write16(frame, ipAt + ipv4.totalLength, frame.length - ipAt);
  write16(frame, ipAt + ipv4.checksum, 0);
  write16(frame, ipAt + ipv4.checksum, checksum(frame, ipAt, ipAt + ipv4HeaderBytes(frame, ipAt)));
}

/** The headers of a segment, copied, to make ACKs from later. */
export function ackTemplate(view: FrameView): SegmentParts {
  const parts = fillParts(emptyParts(), view);
  parts.frame = Buffer.from(view.frame.subarray(0, view.payloadAt));
  parts.payloadBytes = 0;
  return parts;
}

export function emptyParts(): SegmentParts {
  return {
    frame: scratch,
    ipAt: 0,
    transportAt: 0,
    payloadAt: 0,
    payloadBytes: 0,
    sequence: 0,
    ack: 0,
    flags: 0,
    window: 0,
    timestampsAt: 0,
    timestamp: 0,
  };
}

/** Takes everything from the view. The frame still belongs to whoever brought it. */
export function fillParts<T extends SegmentParts>(parts: T, view: FrameView): T {
  parts.frame = view.frame;
  parts.ipAt = view.ipAt;
  parts.transportAt = view.transportAt;
  parts.payloadAt = view.payloadAt;
  parts.payloadBytes = view.payloadBytes;
  parts.sequence = view.sequence;
  parts.ack = view.ack;
  parts.flags = view.flags;
  parts.window = view.window;
  parts.timestampsAt = view.timestampsAt;
  parts.timestamp = view.timestampsAt === 0 ? 0 : view.timestamp;
  return parts;
}
