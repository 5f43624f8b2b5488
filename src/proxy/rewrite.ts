// New frames out of the primary's: cut, clamped, or an ACK of its own. All lengths and checksums of what comes out are
// right. One scratch buffer is used again for every frame: the result is valid until the next call.

import { checksum, replace16, replace32, write16, write32 } from '../packet/checksum.ts';
import type { FrameView } from '../packet/frame-view.ts';
import { ipProtocol, ipv4, ipv4HeaderBytes } from '../packet/ipv4.ts';
import { tcp, tcpFlag } from '../packet/tcp.ts';
import { transportChecksum } from '../packet/transport-checksum.ts';

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
}

const scratch = Buffer.alloc(65_536 + 64);

/** The same segment with another ack and window. */
export function withAckAndWindow(parts: SegmentParts, ack: number, window: number): Uint8Array {
  if (ack === parts.ack && window === parts.window) return parts.frame;
  scratch.set(parts.frame);
  const at = parts.transportAt;
  if (ack !== parts.ack) replace32(scratch, at + tcp.checksum, at, at + tcp.ack, ack);
  if (window !== parts.window) replace16(scratch, at + tcp.checksum, at + tcp.window, window);
  return scratch.subarray(0, parts.frame.length);
}

/** Bytes [from, to) of the segment's payload as a segment of its own. PSH and FIN stay only with the last part. */
export function cutSegment(parts: SegmentParts, from: number, to: number, end: CutEnd): Uint8Array {
  const payload = parts.frame.subarray(parts.payloadAt + from, parts.payloadAt + to);
  scratch.set(parts.frame.subarray(0, parts.payloadAt));
  scratch.set(payload, parts.payloadAt);
  const length = parts.payloadAt + payload.length;
  const at = parts.transportAt;
  const cleared = (to < parts.payloadBytes ? tcpFlag.psh | tcpFlag.fin : 0) | (end.fin ? 0 : tcpFlag.fin);
  write32(scratch, at + tcp.sequence, (parts.sequence + from) >>> 0);
  scratch[at + tcp.flags] = parts.flags & ~cleared;
  return finish(parts, length, end.ack, end.window);
}

export interface CutEnd {
  fin: boolean;
  ack: number;
  window: number;
}

/** A pure ACK made from the headers of `parts`, as they stand in `template`. */
export function pureAck(parts: SegmentParts, sequence: number, ack: number, window: number): Uint8Array {
  scratch.set(parts.frame.subarray(0, parts.payloadAt));
  write32(scratch, parts.transportAt + tcp.sequence, sequence);
  scratch[parts.transportAt + tcp.flags] = tcpFlag.ack;
  return finish(parts, parts.payloadAt, ack, window);
}

function finish(parts: SegmentParts, length: number, ack: number, window: number): Uint8Array {
  const at = parts.transportAt;
  write32(scratch, at + tcp.ack, ack);
  write16(scratch, at + tcp.window, window);
  const frame = scratch.subarray(0, length);
  write16(frame, parts.ipAt + ipv4.totalLength, length - parts.ipAt);
  write16(frame, parts.ipAt + ipv4.checksum, 0);
  const headerEnd = parts.ipAt + ipv4HeaderBytes(frame, parts.ipAt);
  write16(frame, parts.ipAt + ipv4.checksum, checksum(frame, parts.ipAt, headerEnd));
  write16(frame, at + tcp.checksum, transportChecksum(frame, at, length, ipProtocol.tcp));
  return frame;
}

/** The headers of a segment, copied, to make ACKs from later. */
export function ackTemplate(view: FrameView): SegmentParts {
  return { ...partsOf(view), frame: Buffer.from(view.frame.subarray(0, view.payloadAt)), payloadBytes: 0 };
}

export function partsOf(view: FrameView): SegmentParts {
  return {
    frame: view.frame,
    ipAt: view.ipAt,
    transportAt: view.transportAt,
    payloadAt: view.payloadAt,
    payloadBytes: view.payloadBytes,
    sequence: view.sequence,
    ack: view.ack,
    flags: view.flags,
    window: view.window,
  };
}
