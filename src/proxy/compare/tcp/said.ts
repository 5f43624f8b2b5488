// What has left of each connection, so that a retransmission is told from something new that only looks like one: its
// SYN and FIN, and the bytes that the client has not acknowledged (sent-bytes.ts). What the client has acknowledged it
// is not told again: a segment that repeats such bytes leaves without them.

import { advance, distance, later } from '../../../packet/sequence.ts';
import { synText, tcpFlag } from '../../../packet/tcp.ts';
import type { FramePool } from '../../frames/frame-pool.ts';
import type { SegmentParts } from '../../frames/rewrite.ts';
import { proxyLimits } from '../../limits.ts';
import { SentBytes } from './sent-bytes.ts';
import type { Held, TcpStream } from './stream.ts';

export class SaidBefore {
  /** Memory of all connections. */
  bytes = 0;
  private readonly pool: FramePool;

  constructor(pool: FramePool) {
    this.pool = pool;
  }

  /** Whether all that the segment says has left before, or was acknowledged by the client. */
  has(stream: TcpStream, parts: SegmentParts): boolean {
    const isSyn = (parts.flags & tcpFlag.syn) !== 0;
    if (isSyn && !hasSaidSyn(stream, parts)) return false;
    const from = payloadFrom(parts);
    const end = advance(from, parts.payloadBytes);
    if ((parts.flags & tcpFlag.fin) !== 0 && stream.rFinAt !== end) return false;
    const acked = Math.max(0, ackedBytes(stream, parts));
    if (acked >= parts.payloadBytes) return true;
    const { frame, payloadAt, payloadBytes } = parts;
    return stream.sent?.matches(advance(from, acked), frame, payloadAt + acked, payloadAt + payloadBytes) === true;
  }

  /** Bytes [from, to) of the segment's payload have left; a frame of `held` that is the pool's is ours then. */
  note(stream: TcpStream, parts: SegmentParts, from: number, to: number, held?: Held): void {
    if (to <= from) return;
    const sequence = advance(payloadFrom(parts), from);
    stream.sent ??= new SentBytes(this.pool, sequence);
    const { sent } = stream;
    const before = sent.bytes;
    const isOurs = held?.owned === true;
    if (isOurs) held.owned = false;
    sent.add(sequence, parts.frame, parts.payloadAt + from, parts.payloadAt + to, isOurs);
    this.bytes += sent.bytes - before;
    if (sent.bytes > proxyLimits.sentBytesPerConnectionMax || this.bytes > proxyLimits.sentBytesMax)
      this.makeRoom(sent);
  }

  private makeRoom(sent: SentBytes): void {
    while (sent.bytes > proxyLimits.sentBytesPerConnectionMax || this.bytes > proxyLimits.sentBytesMax) {
      const before = sent.bytes;
      if (!sent.dropOldest()) return;
      this.bytes += sent.bytes - before;
    }
  }

  /** The client says that it has everything before `ack`; more than has left nobody can have. */
  acked(stream: TcpStream, ack: number): void {
    if (!stream.pKnown || distance(ack, stream.rNext) > 0) return;
    stream.cAck = stream.cAckKnown ? later(stream.cAck, ack) : ack;
    stream.cAckKnown = true;
    const { sent } = stream;
    if (sent === undefined || sent.bytes === 0) return;
    const before = sent.bytes;
    sent.acked(stream.cAck);
    this.bytes += sent.bytes - before;
  }

  /** The connection is over, or another one begins on its 5-tuple. */
  forget(stream: TcpStream): void {
    stream.rSyn = undefined;
    stream.rFinAt = undefined;
    stream.cAckKnown = false;
    if (stream.sent === undefined) return;
    this.bytes -= stream.sent.bytes;
    stream.sent.reset(0);
    stream.sent = undefined;
  }
}

/** SYN and FIN of the segment have left. */
export function noteEnds(stream: TcpStream, parts: SegmentParts): void {
  if ((parts.flags & tcpFlag.syn) !== 0) {
    stream.rSyn = synText(parts.frame, parts.transportAt);
    stream.rSynFlags = parts.flags;
  }
  if ((parts.flags & tcpFlag.fin) !== 0) stream.rFinAt = advance(payloadFrom(parts), parts.payloadBytes);
}

/** How many of the segment's bytes, its FIN among them, the client has acknowledged; not more than 0 when none. */
export function ackedBytes(stream: TcpStream, parts: SegmentParts): number {
  return stream.cAckKnown ? distance(stream.cAck, payloadFrom(parts)) : 0;
}

function hasSaidSyn(stream: TcpStream, parts: SegmentParts): boolean {
  const isSameKind = ((stream.rSynFlags ^ parts.flags) & tcpFlag.ack) === 0;
  return isSameKind && stream.rSyn === synText(parts.frame, parts.transportAt);
}

function payloadFrom(parts: SegmentParts): number {
  return advance(parts.sequence, (parts.flags & tcpFlag.syn) !== 0 ? 1 : 0);
}
