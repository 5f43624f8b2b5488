// What a segment that leaves may acknowledge, how far it may open the window, and which time it may tell: nothing
// beyond what both guests did, and nothing that takes back what has been said (docs/comparison.md, rules 3 to 5).
//
//    PVM   ack, edge, TSval ─┐
//                            ├─ the earlier of both ── the later of that and what has left ──► out
//    SVM   ack, edge, TSval ─┘

import { advance, distance, earlier, later } from '../../../packet/sequence.ts';
import { tcpFlag } from '../../../packet/tcp.ts';
import type { SegmentParts } from '../../frames/rewrite.ts';
import { windowUpdateBytes } from '../../limits.ts';
import { coarseTimestampMask, coarseWindowBytes, type Similarity } from '../../similarity.ts';
import type { TcpStream } from './stream.ts';

export class TcpClamp {
  /** What the frame at hand may say. */
  readonly out = { ack: 0, window: 0, timestamp: 0, edge: 0 };
  private readonly similarity: Similarity;

  constructor(similarity: Similarity) {
    this.similarity = similarity;
  }

  /** Fills `out` with what `parts` may say. What was said before may always be said again. */
  clamp(stream: TcpStream, parts: SegmentParts): void {
    const { out } = this;
    out.ack = parts.ack;
    out.window = parts.window;
    out.timestamp = parts.timestampsAt === 0 ? 0 : this.clampTime(stream, parts);
    const shift = shiftOf(stream, parts.flags);
    const wanted = edgeOf(parts, shift);
    out.edge = wanted;
    if ((parts.flags & tcpFlag.ack) === 0 || (parts.flags & tcpFlag.rst) !== 0) return;
    let ack = earlier(parts.ack, stream.sAck);
    let edge = this.coarseEdge(ack, earlier(wanted, stream.sEdge));
    if (stream.rAckKnown) {
      ack = later(ack, stream.rAck);
      edge = later(edge, stream.rEdge);
    }
    if (ack === parts.ack && edge === wanted) return;
    out.ack = ack;
    out.window = Math.min(Math.max(0, distance(edge, ack)) >>> shift, 0xffff);
    out.edge = advance(ack, out.window << shift);
  }

  private clampTime(stream: TcpStream, { timestamp, flags }: SegmentParts): number {
    if (this.similarity.timestamps === 'passed') return timestamp;
    let time = stream.sTimeKnown ? earlier(timestamp, stream.sTime) : timestamp;
    // Who opens a connection checks that its SYN's TSval comes back, so that one leaves as it is.
    const isCoarse = this.similarity.timestamps === 'coarse' && (flags & tcpFlag.syn) === 0;
    if (isCoarse) time = (time & coarseTimestampMask) >>> 0;
    return stream.rTimeKnown ? later(time, stream.rTime) : time;
  }

  /** A window is never made so small by rounding that it would stop the client. */
  private coarseEdge(ack: number, edge: number): number {
    if (this.similarity.window === 'exact' || distance(edge, ack) < 2 * coarseWindowBytes) return edge;
    return (edge & -coarseWindowBytes) >>> 0;
  }

  /** Whether `out` neither acknowledges nor opens more than what has left. */
  saysNothingNew(stream: TcpStream): boolean {
    return distance(this.out.ack, stream.rAck) <= 0 && distance(this.out.edge, stream.rEdge) <= 0;
  }

  /** What `out` says has left with a segment made from `parts`. */
  noteSaid(stream: TcpStream, parts: SegmentParts): void {
    if (parts.timestampsAt !== 0) {
      stream.rTime = this.out.timestamp;
      stream.rTimeKnown = true;
    }
    if ((parts.flags & tcpFlag.ack) !== 0) noteLeft(stream, this.out.ack, this.out.edge);
  }
}

/** An acknowledgement and the right edge of a window have left. */
export function noteLeft(stream: TcpStream, ack: number, edge: number): void {
  stream.rAck = stream.rAckKnown ? later(stream.rAck, ack) : ack;
  stream.rEdge = stream.rAckKnown ? later(stream.rEdge, edge) : edge;
  stream.rAckKnown = true;
  const owed = stream.owed;
  if (owed === undefined || distance(owed.ack, stream.rAck) > 0) return;
  // A little more window is not worth a frame of its own: the next segment says it.
  const isWide = distance(stream.rEdge, stream.rAck) >= windowUpdateBytes;
  const missing = distance(owed.edge, stream.rEdge);
  if (missing <= 0 || (isWide && missing < windowUpdateBytes)) stream.owed = undefined;
}

/** The window of a SYN is never scaled. */
export function shiftOf(stream: TcpStream, flags: number): number {
  return (flags & tcpFlag.syn) !== 0 ? 0 : stream.connection.windowShift;
}

export function edgeOf(parts: { ack: number; window: number }, shift: number): number {
  return advance(parts.ack, parts.window << shift);
}
