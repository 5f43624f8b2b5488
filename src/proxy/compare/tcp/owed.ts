// What the PVM has acknowledged, or how far it has opened the window, beyond what the client could be told: it is owed,
// and an ACK of ours says it as soon as the SVM has come as far. Without that the client would wait for the PVM's next
// segment, which may wait for the client.

import { distance, later } from '../../../packet/sequence.ts';
import { tcpFlag } from '../../../packet/tcp.ts';
import { pureAck, type SegmentParts } from '../../frames/rewrite.ts';
import { windowUpdateBytes } from '../../limits.ts';
import type { Similarity } from '../../similarity.ts';
import type { CompareSink, Moment } from '../sink.ts';
import { edgeOf, shiftOf, type TcpClamp } from './clamp.ts';
import type { OwedAck, TcpStream } from './stream.ts';

export class OwedAcks {
  /** ACKs of ours. */
  made = 0;
  private readonly sink: CompareSink;
  private readonly clamp: TcpClamp;
  private readonly moment: Moment;
  private readonly similarity: Similarity;

  constructor(sink: CompareSink, parts: { clamp: TcpClamp; moment: Moment; similarity: Similarity }) {
    this.sink = sink;
    this.clamp = parts.clamp;
    this.moment = parts.moment;
    this.similarity = parts.similarity;
  }

  /** What the segment of `template` acknowledges is owed. */
  owe(stream: TcpStream, template: SegmentParts): void {
    // The options of a SYN do not belong into an ACK, and the next segment says the window again.
    if ((template.flags & tcpFlag.syn) !== 0) return;
    const edge = edgeOf(template, shiftOf(stream, template.flags));
    const owed = stream.owed;
    const ack = owed === undefined ? template.ack : later(owed.ack, template.ack);
    const furthest = owed === undefined ? edge : later(owed.edge, edge);
    stream.owed = { template, ack, edge: furthest, since: owed?.since ?? this.moment.now };
  }

  /** Says what is owed as far as the SVM has come. */
  pay(stream: TcpStream, isCommit = false): void {
    const owed = stream.owed;
    if (owed === undefined || !stream.sAckKnown) return;
    if (this.similarity.acks === 'held' && !isCommit) return;
    const { out } = this.clamp;
    const window = windowOf(stream, owed);
    this.clamp.clamp(stream, { ...owed.template, flags: tcpFlag.ack, ack: owed.ack, window });
    const gain = stream.rAckKnown ? distance(out.edge, stream.rEdge) : 1;
    const wasShut = !stream.rAckKnown || distance(stream.rEdge, stream.rAck) <= 0;
    const isNewAck = !stream.rAckKnown || distance(out.ack, stream.rAck) > 0;
    if (!isNewAck && gain < windowUpdateBytes && !(wasShut && gain > 0)) return;
    owed.since = this.moment.now;
    this.made += 1;
    this.sink.leave(pureAck(owed.template, stream.rNext, out), 'part', undefined);
    this.clamp.noteSaid(stream, owed.template);
    if (stream.owed === owed && distance(owed.ack, stream.rAck) <= 0 && out.window >= window) stream.owed = undefined;
  }

  /** What is owed although the SVM should have said it by now: an acknowledgement, or a window that is all but shut. */
  since(stream: TcpStream): number | undefined {
    const owed = stream.owed;
    if (owed === undefined) return undefined;
    if (!stream.rAckKnown || distance(owed.ack, stream.rAck) > 0) return owed.since;
    const isShut = distance(stream.rEdge, stream.rAck) < windowUpdateBytes;
    return isShut && distance(owed.edge, stream.rEdge) >= windowUpdateBytes ? owed.since : undefined;
  }

  /** The owed acknowledgement as the PVM meant it; for the survivor. */
  frame(stream: TcpStream): Uint8Array | undefined {
    const owed = stream.owed;
    if (owed === undefined) return undefined;
    const saying = { ack: owed.ack, window: windowOf(stream, owed), timestamp: stream.pTime };
    return Buffer.from(pureAck(owed.template, stream.pNext, saying));
  }
}

function windowOf(stream: TcpStream, owed: OwedAck): number {
  return Math.min(Math.max(0, distance(owed.edge, owed.ack)) >>> stream.connection.windowShift, 0xffff);
}
