// What the SVM has said on a connection in this epoch: its bytes ahead of the PVM, its acknowledgement and window, its
// SYN, FIN and resets. Only noted here; what may leave because of it is the comparer's matter (comparer.ts).
//
// A SYN of the SVM for a connection that the PVM has not begun yet is parked with all that follows it: until the PVM's
// SYN comes, the old connection on this 5-tuple goes on.

import { read16 } from '../../../packet/checksum.ts';
import type { FrameView } from '../../../packet/frame-view.ts';
import { advance, distance, later } from '../../../packet/sequence.ts';
import { synText, tcp, tcpFlag } from '../../../packet/tcp.ts';
import { asBuffer } from '../../frames/byte-stream.ts';
import { proxyLimits } from '../../limits.ts';
import type { CompareSink } from '../sink.ts';
import { edgeOf, shiftOf } from './clamp.ts';
import type { TcpStream } from './stream.ts';

/**
 * What tells resets of a connection apart: their sequence number. The answer to a segment without ACK always has 0
 * there, and says by its acknowledgement what it answers: to a SYN at a closed port, which one.
 */
export function resetName({ sequence, ack, flags }: { sequence: number; ack: number; flags: number }): number {
  return sequence === 0 && (flags & tcpFlag.ack) !== 0 ? 2 ** 32 + ack : sequence;
}

/** Where the urgent data ends that the segment marks. */
export function urgentEnd(parts: { frame: Uint8Array; transportAt: number; sequence: number }): number {
  return advance(parts.sequence, read16(parts.frame, parts.transportAt + tcp.urgent));
}

export class SecondarySide {
  private readonly sink: CompareSink;

  constructor(sink: CompareSink) {
    this.sink = sink;
  }

  /** Whether the frame belongs to a connection that the PVM has not begun. */
  isAhead(stream: TcpStream, view: FrameView): boolean {
    return stream.parked.length > 0 || (view.isSyn && stream.isn !== view.sequence);
  }

  park(stream: TcpStream, view: FrameView): void {
    if (view.isSyn && (stream.parked.length === 0 || view.sequence !== stream.parkedIsn)) {
      stream.parked = [];
      stream.parkedBytes = 0;
      stream.parkedIsn = view.sequence;
    }
    if (stream.parkedBytes + view.frame.length > proxyLimits.aheadBytesPerConnectionMax) {
      this.sink.want({ kind: 'limit', connection: stream.text, detail: 'the secondary began a connection alone' });
      return;
    }
    stream.parked.push(Buffer.from(view.frame));
    stream.parkedBytes += view.frame.length;
  }

  /** What was parked for the connection that the PVM begins now with `isn`. */
  unpark(stream: TcpStream, isn: number): Buffer[] {
    const parked = stream.parked.length > 0 && stream.parkedIsn === isn ? stream.parked : [];
    stream.parked = [];
    stream.parkedBytes = 0;
    return parked;
  }

  /** Notes the frame; false when it says nothing for this connection. */
  take(stream: TcpStream, view: FrameView): boolean {
    // The PVM has begun anew: until the SVM's SYN comes, this is still the old connection.
    if (stream.isn !== undefined && !stream.sSynSeen && !view.isSyn) return false;
    if (view.isSyn && answersAnother(stream, view)) return false;
    if (view.isSyn) this.takeSyn(stream, view);
    if (view.timestampsAt !== 0 && !view.isReset) {
      stream.sTime = stream.sTimeKnown ? later(stream.sTime, view.timestamp) : view.timestamp;
      stream.sTimeKnown = true;
    }
    if (!stream.sKnown && !view.isReset) {
      stream.sKnown = true;
      stream.ahead.reset(view.sequence);
      stream.ahead.consume(stream.rNext);
    }
    if (view.hasAck) this.takeAck(stream, view);
    if ((view.flags & tcpFlag.urg) !== 0) this.takeUrgent(stream, urgentEnd(view));
    if (view.isReset) {
      const name = resetName(view);
      if (!stream.sResets.includes(name)) stream.sResets.push(name);
      if (stream.sResets.length > proxyLimits.resetsMax) stream.sResets.shift();
    } else if (!stream.diverged) this.takeBytes(stream, view);
    return true;
  }

  private takeSyn(stream: TcpStream, view: FrameView): void {
    if (view.hasAck) stream.sSynAck = view.ack;
    if (stream.sSyn === undefined) stream.sSynFlags = view.flags;
    // A guest may offer less when it repeats its SYN.
    const isSameKind = ((view.flags ^ stream.sSynFlags) & tcpFlag.ack) === 0;
    if (isSameKind) stream.sSyn = synText(view.frame, view.transportAt);
    if (stream.sSynSeen) return;
    stream.sSynSeen = true;
    stream.sKnown = true;
    stream.ahead.reset(advance(view.sequence, 1));
  }

  private takeAck(stream: TcpStream, view: FrameView): void {
    const edge = edgeOf(view, shiftOf(stream, view.flags));
    stream.sAck = stream.sAckKnown ? later(stream.sAck, view.ack) : view.ack;
    stream.sEdge = stream.sAckKnown ? later(stream.sEdge, edge) : edge;
    stream.sAckKnown = true;
  }

  private takeUrgent(stream: TcpStream, end: number): void {
    stream.sUrgents ??= [];
    if (!stream.sUrgents.includes(end)) stream.sUrgents.push(end);
    if (stream.sUrgents.length > proxyLimits.urgentsMax) stream.sUrgents.shift();
  }

  private takeBytes(stream: TcpStream, view: FrameView): void {
    const at = advance(view.sequence, view.isSyn ? 1 : 0);
    if (view.payloadBytes > 0) {
      stream.ahead.insert(at, asBuffer(view.frame), view.payloadAt, view.payloadAt + view.payloadBytes);
    }
    if (view.isFin) {
      const finAt = advance(at, view.payloadBytes);
      // A FIN behind what the PVM has left already is a retransmission.
      if (!stream.pKnown || distance(finAt, stream.rNext) >= 0) stream.sFinAt = finAt;
    }
    const tooMany = stream.ahead.bytes > proxyLimits.aheadBytesPerConnectionMax;
    if (tooMany || stream.ahead.piecesApart > proxyLimits.aheadPiecesOutOfOrderMax) this.giveUp(stream);
  }

  /** The SVM is too far ahead: its bytes are not kept, so this connection waits for a commit. */
  private giveUp(stream: TcpStream): void {
    stream.diverged = true;
    stream.ahead.reset(stream.rNext);
    this.sink.want({ kind: 'limit', connection: stream.text, detail: 'the secondary is too far ahead' });
  }

  /** The SVM has said nothing on this connection yet. */
  clear(stream: TcpStream): void {
    stream.sKnown = false;
    stream.sSynSeen = false;
    stream.sSyn = undefined;
    stream.sSynAck = undefined;
    stream.sAckKnown = false;
    stream.sTimeKnown = false;
    stream.sFinAt = undefined;
    stream.sResets = [];
    stream.sUrgents = undefined;
    stream.ahead.reset(stream.rNext);
  }

  /** The SVM was loaded with the PVM's state of the capture: what the PVM had said and acknowledged, it has. */
  becomeThePrimary(stream: TcpStream): void {
    stream.parked = [];
    stream.parkedBytes = 0;
    this.clear(stream);
    stream.sKnown = stream.pKnown;
    stream.sSynSeen = stream.pKnown;
    stream.sAckKnown = stream.pAckKnown;
    stream.sAck = stream.pAck;
    stream.sEdge = stream.pEdge;
    stream.sTimeKnown = stream.pTimeKnown;
    stream.sTime = stream.pTime;
  }
}

/**
 * Whether the SYN-ACK answers another SYN of the client than the PVM's does. The SVM may have answered an old one, and
 * the offset was learned from that: its numbers seem to fit, what it acknowledges is of another connection.
 */
function answersAnother(stream: TcpStream, view: FrameView): boolean {
  return view.hasAck && stream.pSynAck !== undefined && view.ack !== stream.pSynAck;
}
