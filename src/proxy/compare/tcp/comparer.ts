// Compares one TCP connection of the PVM with the SVM's, and says what may leave (docs/comparison.md has the rules).
//
// - Payload is a byte stream: the part of a segment that is equal leaves, cut off as a frame of its own if need be.
// - Nothing leaves that acknowledges, or opens the window, beyond what both guests did. What the PVM wanted to say
//   beyond that is *owed*, and said by an ACK of ours when the SVM has caught up.
// - SYN, FIN and RST leave when the SVM has sent them at the same place.
// - A segment that says something which cannot be compared leaves by a commit alone.
// - What has left once may leave again at once (said.ts knows what that is).
// - No TSval leaves that is beyond the SVM's latest, or before one that has left. So whoever carries the connection on
//   is never behind what the client has seen, and the client drops nothing as an old duplicate (RFC 7323, PAWS).
//
// A segment that leaves whole is changed where it lies, and what is kept lies in pooled buffers: equal traffic
// allocates nothing per frame.

import { FrameView } from '../../../packet/frame-view.ts';
import { advance, distance, later } from '../../../packet/sequence.ts';
import { hasPlainOptions, tcp, tcpFlag } from '../../../packet/tcp.ts';
import type { Connection } from '../../connections/connection.ts';
import { asBuffer } from '../../frames/byte-stream.ts';
import type { FramePool } from '../../frames/frame-pool.ts';
import {
  ackTemplate,
  cutSegment,
  emptyParts,
  fillParts,
  pureAck,
  rewriteInPlace,
  type SegmentParts,
} from '../../frames/rewrite.ts';
import { proxyLimits } from '../../limits.ts';
import type { DivergenceKind } from '../../reason.ts';
import type { Similarity } from '../../similarity.ts';
import { areAsGood, beginsAnswer, dateAround, dateBytes } from '../http-date.ts';
import type { CompareSink, Moment } from '../sink.ts';
import { edgeOf, noteLeft, shiftOf, TcpClamp } from './clamp.ts';
import { HeldSegments } from './held.ts';
import { OwedAcks } from './owed.ts';
import { ackedBytes, noteEnds, SaidBefore } from './said.ts';
import { resetName, SecondarySide, urgentEnd } from './secondary.ts';
import { type Held, TcpStream } from './stream.ts';
import { synDifference } from './syn.ts';

const none = new Uint8Array(0);

export class TcpComparer {
  epoch = 0;
  /** Bytes of the SVM kept for all connections. */
  aheadBytes = 0;
  /** Segments cut, and held frames given up because their connection began anew. */
  split = 0;
  oldGeneration = 0;
  readonly owed: OwedAcks;
  private readonly sink: CompareSink;
  private readonly pool: FramePool;
  private readonly clamp: TcpClamp;
  private readonly held: HeldSegments;
  private readonly secondary: SecondarySide;
  readonly said: SaidBefore;
  private readonly aheadStreams = new Set<TcpStream>();
  private readonly parkedView = new FrameView();
  private readonly moment: Moment = { now: 0 };
  /** The segment at hand, where it is not held. */
  private readonly passing = emptyParts();

  constructor(sink: CompareSink, pool: FramePool, similarity: Similarity) {
    this.sink = sink;
    this.pool = pool;
    this.clamp = new TcpClamp(similarity);
    this.owed = new OwedAcks(sink, { clamp: this.clamp, moment: this.moment, similarity });
    this.held = new HeldSegments(sink, pool, this.moment);
    this.secondary = new SecondarySide(sink);
    this.said = new SaidBefore(pool);
  }

  /** The stream of a connection, made when it is first needed. */
  streamOf(connection: Connection<TcpStream>): TcpStream {
    let stream = connection.attachment;
    if (stream === undefined) {
      stream = new TcpStream(connection, this.pool);
      stream.epoch = this.epoch;
      connection.attachment = stream;
    }
    this.enterEpoch(stream);
    return stream;
  }

  /** A frame of the PVM that leaves without comparison (no secondary, or another rule): only its numbers are noted. */
  observe(connection: Connection<TcpStream>, view: FrameView): void {
    const stream = this.streamOf(connection);
    if (view.isSyn) this.noteSyn(stream, view);
    if (view.isReset) return;
    this.notePrimary(stream, view);
    if (view.isSyn || view.isFin) noteEnds(stream, fillParts(this.passing, view));
    stream.rNext = stream.pNext;
    stream.rTimeKnown = stream.pTimeKnown;
    stream.rTime = stream.pTime;
    if (!view.hasAck) return;
    noteLeft(stream, view.ack, edgeOf(view, shiftOf(stream, view.flags)));
  }

  /** A frame of the PVM, in client space. */
  fromPrimary(connection: Connection<TcpStream>, view: FrameView, now: number, order: number): void {
    this.moment.now = now;
    const stream = this.streamOf(connection);
    if (view.isSyn) this.noteSyn(stream, view);
    if (!view.isReset) this.notePrimary(stream, view);
    const opaque = isOpaque(view);
    if (view.isReset || opaque) this.hold(stream, view, order, opaque);
    else {
      const bytes = view.payloadBytes + (view.isSyn ? 1 : 0) + (view.isFin ? 1 : 0);
      if (bytes === 0) this.fromPrimaryPureAck(stream, view);
      else if (this.isOldNews(stream, view, bytes)) this.leaveAgain(stream, fillParts(this.passing, view), undefined);
      else this.hold(stream, view, order, false);
    }
    this.progress(stream);
    this.held.keepFresh();
    this.settle(stream);
  }

  /** The client acknowledges what the guest has said, in a segment that the guest takes. */
  fromClient(stream: TcpStream, ack: number): void {
    this.said.acked(stream, ack);
  }

  /** A frame of the SVM of this epoch, in client space. */
  fromSecondary(connection: Connection<TcpStream>, view: FrameView, now: number): void {
    this.moment.now = now;
    const stream = this.streamOf(connection);
    if (this.secondary.isAhead(stream, view)) this.secondary.park(stream, view);
    else this.takeSecondary(stream, view);
    this.settle(stream);
  }

  private takeSecondary(stream: TcpStream, view: FrameView): void {
    if (!this.secondary.take(stream, view)) return;
    this.progress(stream);
    stream.ahead.keep();
  }

  /**
   * What a SYN-ACK acknowledges says which call of the client it answers: an answer to another is another connection.
   */
  private noteSyn(stream: TcpStream, view: FrameView): void {
    const answers = view.hasAck ? view.ack : undefined;
    const before = stream.isn === view.sequence ? stream.pSynAck : undefined;
    const isNew = stream.isn !== view.sequence || (before !== undefined && answers !== undefined && before !== answers);
    stream.pSynAck = answers ?? before;
    if (isNew) this.restart(stream, view.sequence);
    else if (stream.pSynAck !== undefined && stream.sSynAck !== undefined && stream.sSynAck !== stream.pSynAck)
      this.secondary.clear(stream);
  }

  /** The PVM begins a connection on this 5-tuple: nothing of an older one counts any more. */
  private restart(stream: TcpStream, isn: number): void {
    this.oldGeneration += stream.held.length;
    this.held.takeAll(stream);
    const parked = this.secondary.unpark(stream, isn);
    stream.isn = isn;
    stream.pKnown = true;
    stream.pNext = isn;
    stream.pAckKnown = false;
    stream.rNext = isn;
    stream.rAckKnown = false;
    stream.pTimeKnown = false;
    stream.rTimeKnown = false;
    stream.owed = undefined;
    stream.diverged = false;
    stream.isHttp = false;
    stream.date = undefined;
    this.said.forget(stream);
    this.secondary.clear(stream);
    for (const frame of parked) this.takeSecondary(stream, this.parkedView.parse(frame));
  }

  /** The first look at a stream in a new epoch. */
  private enterEpoch(stream: TcpStream): void {
    if (stream.epoch === this.epoch) return;
    stream.epoch = this.epoch;
    stream.diverged = false;
    stream.date = undefined;
    stream.rNext = stream.pNext;
    this.secondary.becomeThePrimary(stream);
  }

  /** A commit: the comparison starts anew. Every stream with something held has been emptied before. */
  beginEpoch(epoch: number): void {
    this.epoch = epoch;
    for (const stream of this.aheadStreams) {
      this.enterEpoch(stream);
      stream.aheadCounted = 0;
    }
    this.aheadStreams.clear();
    this.aheadBytes = 0;
  }

  private notePrimary(stream: TcpStream, view: FrameView): void {
    if (view.payloadBytes > 0 && stream.isn !== undefined && view.sequence === (stream.isn + 1) >>> 0)
      stream.isHttp = beginsAnswer(view.frame, view.payloadAt, view.payloadAt + view.payloadBytes);
    const end = advance(view.sequence, view.payloadBytes + (view.isSyn ? 1 : 0) + (view.isFin ? 1 : 0));
    if (!stream.pKnown) {
      stream.pKnown = true;
      stream.pNext = end;
      stream.rNext = view.sequence;
      stream.ahead.consume(stream.rNext);
    } else stream.pNext = later(stream.pNext, end);
    if (view.timestampsAt !== 0) {
      stream.pTime = stream.pTimeKnown ? later(stream.pTime, view.timestamp) : view.timestamp;
      stream.pTimeKnown = true;
    }
    if (!view.hasAck) return;
    const edge = edgeOf(view, shiftOf(stream, view.flags));
    stream.pAck = stream.pAckKnown ? later(stream.pAck, view.ack) : view.ack;
    stream.pEdge = stream.pAckKnown ? later(stream.pEdge, edge) : edge;
    stream.pAckKnown = true;
  }

  private isOldNews(stream: TcpStream, view: FrameView, bytes: number): boolean {
    if (distance(advance(view.sequence, bytes), stream.rNext) > 0) return false;
    if ((view.hasAck && !stream.sAckKnown) || !marksNothingNew(stream, view)) return false;
    return this.said.has(stream, fillParts(this.passing, view));
  }

  private fromPrimaryPureAck(stream: TcpStream, view: FrameView): void {
    const isAllowed = stream.sAckKnown && distance(view.ack, stream.sAck) <= 0 && marksNothingNew(stream, view);
    if (!isAllowed) {
      this.owed.owe(stream, ackTemplate(view));
      return;
    }
    const { out } = this.clamp;
    const parts = fillParts(this.passing, view);
    this.clamp.clamp(stream, parts);
    const isChanged = out.ack !== parts.ack || out.window !== parts.window;
    if (isChanged) this.owed.owe(stream, ackTemplate(view));
    // A changed ACK that says nothing new would look like a duplicate one: like a loss.
    if (isChanged && stream.rAckKnown && this.clamp.saysNothingNew(stream)) return;
    const isAhead = distance(view.sequence, stream.rNext) > 0;
    const frame = isAhead ? pureAck(parts, stream.rNext, out) : rewriteInPlace(parts, out);
    this.sink.leave(frame, 'other', undefined);
    this.clamp.noteSaid(stream, parts);
  }

  private hold(stream: TcpStream, view: FrameView, order: number, opaque: boolean): void {
    if (!this.held.add(stream, view, order, opaque) && view.hasAck) this.owed.owe(stream, ackTemplate(view));
  }

  /** Lets leave what the SVM has confirmed, from the oldest on. */
  private progress(stream: TcpStream): void {
    while (stream.held.length > 0 && !stream.diverged) {
      const head = stream.held[0] as Held;
      if (!this.tryHead(stream, head)) break;
    }
    this.owed.pay(stream);
  }

  /** True when the head has left whole. */
  private tryHead(stream: TcpStream, head: Held): boolean {
    if (head.isOpaque) return this.diverge(stream, 'options', head.sequence, none, none, opaqueText);
    if ((head.flags & tcpFlag.rst) !== 0) return this.tryReset(stream, head);
    if ((head.flags & tcpFlag.ack) !== 0 && !stream.sAckKnown) return false;
    if (!marksNothingNew(stream, head)) return this.blocked(stream);
    if ((head.flags & tcpFlag.syn) !== 0) return this.trySyn(stream, head);
    if (distance(head.sequence, stream.rNext) > 0) return this.blocked(stream);
    return this.tryBytes(stream, head);
  }

  private tryReset(stream: TcpStream, head: Held): boolean {
    if (!stream.sResets.includes(resetName(head))) return false;
    this.finishHead(stream, head);
    return true;
  }

  private trySyn(stream: TcpStream, head: Held): boolean {
    if (stream.sSyn === undefined && distance(head.sequence, stream.rNext) < 0) return this.tryAgain(stream, head);
    if (stream.sSyn === undefined) return false;
    // Simultaneous open: both guests sent SYN, and the PVM has answered the client's. So will the SVM.
    const isAnswer = distance(head.sequence, stream.rNext) < 0 && (head.flags & tcpFlag.ack) !== 0;
    if (isAnswer && stream.sSynAck === undefined) return this.blocked(stream);
    const difference = synDifference(stream, head);
    if (difference !== undefined) return this.diverge(stream, 'options', head.sequence, none, none, difference);
    const payloadFrom = advance(head.sequence, 1);
    const here = Math.max(0, Math.min(distance(stream.ahead.next, payloadFrom), head.payloadBytes));
    const equal = stream.ahead.equalBytes(payloadFrom, asBuffer(head.frame), head.payloadAt, here);
    if (equal < here) return this.divergePayload(stream, head, payloadFrom, equal);
    return here === head.payloadBytes && this.finishHead(stream, head);
  }

  private tryBytes(stream: TcpStream, head: Held): boolean {
    const done = Math.max(0, distance(stream.rNext, head.sequence));
    const rest = Math.max(0, head.payloadBytes - done);
    if (done >= head.payloadBytes + (head.flags & tcpFlag.fin)) return this.tryAgain(stream, head);
    const from = advance(head.sequence, done);
    if (rest > 0) {
      const here = stream.sKnown && distance(from, stream.ahead.base) >= 0 ? distance(stream.ahead.next, from) : 0;
      const count = Math.max(0, Math.min(here, rest));
      const equal = stream.ahead.equalBytes(from, asBuffer(head.frame), head.payloadAt + done, count);
      if (equal < count)
        return this.isTime(stream, head, done + equal)
          ? this.waitForTime(stream, head, done, done + equal)
          : this.divergePayload(stream, head, from, equal);
      if (count < rest) return this.waitForMore(stream, head, done, count);
    }
    if ((head.flags & tcpFlag.fin) !== 0 && !this.finAgrees(stream, head, done)) return false;
    return this.finishHead(stream, head);
  }

  /** All of the head stands where something has left before: the same, or something else. */
  private tryAgain(stream: TcpStream, head: Held): boolean {
    const isSyn = (head.flags & tcpFlag.syn) !== 0;
    if (this.said.has(stream, head)) {
      this.held.removeHead(stream, head);
      this.leaveAgain(stream, head, head);
      this.held.giveBack(head);
      return true;
    }
    const end = head.payloadAt + Math.min(head.payloadBytes, proxyLimits.divergenceBytes);
    const primary = head.frame.subarray(head.payloadAt, end);
    return this.diverge(stream, isSyn ? 'options' : 'payload', head.sequence, primary, none, againText);
  }

  /**
   * Whether the two sides differ at `at` of the payload by the second of a time alone, as far as the SVM has said it.
   */
  private isTime(stream: TcpStream, head: Held, at: number): boolean {
    if (!stream.isHttp) return false;
    const frame = asBuffer(head.frame);
    const { payloadAt, payloadBytes } = head;
    const value = dateAround(frame, payloadAt, payloadAt + payloadBytes, payloadAt + at);
    if (value === undefined) return false;
    const sequence = advance(head.sequence, value - payloadAt);
    if (stream.date?.sequence === sequence) return true;
    const ours = frame.toString('latin1', value, value + dateBytes);
    const known = payloadAt + at - value;
    const rest = stream.ahead.peek(advance(head.sequence, at), dateBytes - known);
    if (rest.length < dateBytes - known) return true;
    const theirs = ours.slice(0, known) + Buffer.from(rest).toString('latin1');
    const bytes = Uint8Array.from(frame.subarray(value, value + dateBytes));
    if (!areAsGood(ours, theirs, this.sink.wallMs()) || !this.sink.tolerate(stream.connection.key, sequence, bytes))
      return false;
    stream.date = { sequence, bytes };
    return true;
  }

  /** The head waits until the secondary says the PVM's time; what stands before it may leave. */
  private waitForTime(stream: TcpStream, head: Held, done: number, to: number): false {
    if (to > done) this.leavePart(stream, head, done, to);
    return false;
  }

  /** The secondary says the PVM's time at `sequence` from now on. */
  tolerated(connection: Connection<TcpStream>, sequence: number, now: number): boolean {
    const stream = connection.attachment;
    if (stream?.date?.sequence !== sequence || stream.epoch !== this.epoch) return false;
    this.moment.now = now;
    stream.ahead.replace(sequence, stream.date.bytes);
    stream.date = undefined;
    this.progress(stream);
    this.settle(stream);
    return true;
  }

  /** `count` more bytes of the head may leave; the SVM has no more for now. */
  private waitForMore(stream: TcpStream, head: Held, done: number, count: number): boolean {
    if (count > 0) this.leavePart(stream, head, done, done + count);
    if (stream.sFinAt !== undefined && stream.sFinAt === stream.ahead.next && stream.sFinAt === stream.rNext) {
      const at = done + count;
      const primary = head.frame.subarray(head.payloadAt + at, head.payloadAt + at + proxyLimits.divergenceBytes);
      return this.diverge(stream, 'fin', stream.rNext, primary, none, 'the secondary ended the stream here');
    }
    return this.blocked(stream);
  }

  /** The head waits for the SVM. In vain, if the SVM has reset the connection. */
  private blocked(stream: TcpStream): boolean {
    if (stream.sResets.length === 0) return false;
    return this.diverge(stream, 'rst', stream.rNext, none, none, 'the secondary reset the connection');
  }

  private finAgrees(stream: TcpStream, head: Held, done: number): boolean {
    const finAt = advance(head.sequence, head.payloadBytes);
    if (stream.sFinAt === finAt) return true;
    if (head.payloadBytes > done) this.leavePart(stream, head, done, head.payloadBytes);
    const goesOn = stream.sKnown && distance(stream.ahead.next, finAt) > 0;
    if (!goesOn && stream.sFinAt === undefined) return this.blocked(stream);
    const secondary = stream.ahead.peek(finAt, proxyLimits.divergenceBytes);
    return this.diverge(stream, 'fin', finAt, none, secondary, 'the secondary goes on behind the end of the stream');
  }

  private divergePayload(stream: TcpStream, head: Held, from: number, equal: number): boolean {
    const payloadFrom = advance(head.sequence, (head.flags & tcpFlag.syn) !== 0 ? 1 : 0);
    const done = distance(from, payloadFrom);
    if (equal > 0 && (head.flags & tcpFlag.syn) === 0) this.leavePart(stream, head, done, done + equal);
    const at = head.payloadAt + done + equal;
    const end = Math.min(at + proxyLimits.divergenceBytes, head.payloadAt + head.payloadBytes);
    const where = advance(from, equal);
    const secondary = stream.ahead.peek(where, proxyLimits.divergenceBytes);
    return this.diverge(stream, 'payload', where, head.frame.subarray(at, end), secondary);
  }

  private diverge(
    stream: TcpStream,
    kind: DivergenceKind,
    sequence: number,
    primary: Uint8Array,
    secondary: Uint8Array,
    detail?: string,
  ): false {
    stream.diverged = true;
    const offset = stream.isn === undefined ? sequence : (sequence - stream.isn - 1) >>> 0;
    const what = { kind, connection: stream.text, offset, primary, secondary };
    this.sink.diverged(detail === undefined ? what : { ...what, detail });
    return false;
  }

  /** Lets bytes [from, to) of the payload leave; the head stays with the rest. */
  private leavePart(stream: TcpStream, head: Held, from: number, to: number): void {
    this.clamp.clamp(stream, head);
    this.split += 1;
    this.sink.leave(cutSegment(head, from, to, false, this.clamp.out), 'part', head);
    this.said.note(stream, head, from, to);
    this.left(stream, head, advance(head.sequence, to));
  }

  /** What has left leaves again, without the bytes that the client has acknowledged. */
  private leaveAgain(stream: TcpStream, parts: SegmentParts, held: Held | undefined): void {
    const { out } = this.clamp;
    this.clamp.clamp(stream, parts);
    const fin = parts.flags & tcpFlag.fin;
    const acked = (parts.flags & tcpFlag.syn) === 0 ? ackedBytes(stream, parts) : 0;
    const isKept = parts.payloadBytes === 0 || acked <= 0;
    const isGone = acked >= parts.payloadBytes + fin;
    const rest = () => cutSegment(parts, acked, parts.payloadBytes, true, out);
    const frame = isKept ? rewriteInPlace(parts, out) : isGone ? pureAck(parts, parts.sequence, out) : rest();
    this.sink.leave(frame, parts.payloadBytes > 0 ? 'data' : 'other', held);
    this.left(stream, parts, stream.rNext);
  }

  /** Lets what is left of the head leave, and takes it from the list. */
  private finishHead(stream: TcpStream, head: Held): true {
    this.held.removeHead(stream, head);
    this.leaveWhole(stream, head, head);
    this.held.giveBack(head);
    return true;
  }

  /** A frame leaves as it is, clamped; bytes that have left before are cut off if they are only a part of it. */
  private leaveWhole(stream: TcpStream, parts: SegmentParts, held: Held | undefined): void {
    const { out } = this.clamp;
    this.clamp.clamp(stream, parts);
    const isSyn = (parts.flags & tcpFlag.syn) !== 0;
    const bytes = parts.payloadBytes + (isSyn ? 1 : 0) + ((parts.flags & tcpFlag.fin) !== 0 ? 1 : 0);
    const done = distance(stream.rNext, parts.sequence);
    const isTail = !isSyn && done > 0 && done < bytes;
    const frameClass = parts.payloadBytes > 0 ? 'data' : 'other';
    const frame = isTail ? cutSegment(parts, done, parts.payloadBytes, true, out) : rewriteInPlace(parts, out);
    this.sink.leave(frame, frameClass, held);
    if ((parts.flags & tcpFlag.rst) !== 0) return;
    if ((parts.flags & (tcpFlag.syn | tcpFlag.fin)) !== 0) noteEnds(stream, parts);
    this.said.note(stream, parts, isTail ? done : 0, parts.payloadBytes, held);
    this.left(stream, parts, advance(parts.sequence, bytes));
  }

  private left(stream: TcpStream, parts: SegmentParts, next: number): void {
    stream.rNext = later(stream.rNext, next);
    stream.ahead.consume(stream.rNext);
    if (stream.sFinAt !== undefined && distance(stream.sFinAt, stream.rNext) < 0) stream.sFinAt = undefined;
    if ((parts.flags & tcpFlag.ack) !== 0) {
      const wanted = edgeOf(parts, shiftOf(stream, parts.flags));
      const { out } = this.clamp;
      const isLess = distance(out.ack, parts.ack) < 0 || distance(out.edge, wanted) < 0;
      if (isLess) this.owed.owe(stream, { ...parts, frame: Buffer.from(parts.frame.subarray(0, parts.payloadAt)) });
    }
    this.clamp.noteSaid(stream, parts);
  }

  /** A commit covers everything held: it leaves in the order that the proxy chooses. */
  leaveByCommit(stream: TcpStream, held: Held, now: number): void {
    this.moment.now = now;
    this.enterEpoch(stream);
    this.leaveWhole(stream, { ...held }, held);
  }

  /** Takes what is held off the stream, for `leaveByCommit`. */
  takeHeld(stream: TcpStream): void {
    this.held.takeAll(stream);
  }

  /** After the held frames of a commit have left: what is owed is covered too. */
  afterCommit(stream: TcpStream, now: number): void {
    this.moment.now = now;
    this.enterEpoch(stream);
    this.owed.pay(stream, true);
    this.settle(stream);
  }

  /** The connection is forgotten: so is everything that waits in it. */
  abandon(stream: TcpStream): void {
    this.held.takeAll(stream);
    this.said.forget(stream);
    stream.owed = undefined;
    stream.parked = [];
    stream.parkedBytes = 0;
    stream.ahead.reset(stream.rNext);
    this.settle(stream);
  }

  /** Brings the lists and sums that the proxy keeps over all streams up to date with this one. */
  private settle(stream: TcpStream): void {
    const waits = stream.held.length > 0 || stream.owed !== undefined;
    if (waits && stream.activeIndex < 0) this.sink.activate(stream);
    if (!waits && stream.activeIndex >= 0) this.sink.deactivate(stream);
    const bytes = stream.ahead.bytes + stream.parkedBytes;
    if (bytes === stream.aheadCounted) return;
    this.aheadBytes += bytes - stream.aheadCounted;
    if (bytes > 0 && stream.aheadCounted === 0) this.aheadStreams.add(stream);
    if (bytes === 0) this.aheadStreams.delete(stream);
    stream.aheadCounted = bytes;
    if (this.aheadBytes <= proxyLimits.aheadBytesMax) return;
    this.sink.want({ kind: 'limit', detail: 'the secondary is too far ahead on all connections together' });
  }
}

const againText = 'a retransmission says something else than what has left';
const opaqueText = 'the segment says something that cannot be compared: an option, or a text in a reset';

/**
 * Whether the segment says something beside its payload that nobody compares: options that are not understood (those of
 * a SYN are compared), IP options or extension headers, a text in a reset (RFC 9293, 3.5.3).
 */
function isOpaque(view: FrameView): boolean {
  if (view.hasOptions) return true;
  const headerBytes = view.payloadAt - view.transportAt;
  const isUsual =
    headerBytes === tcp.headerBytesMin || (headerBytes === 32 && view.timestampsAt === view.transportAt + 24);
  if ((view.flags & (tcpFlag.rst | tcpFlag.syn)) === 0 && isUsual) return false;
  if (view.isReset && view.payloadBytes > 0) return true;
  return !view.isSyn && !hasPlainOptions(view.frame, view.transportAt);
}

/**
 * Whether the segment marks no urgent data, or some that the SVM has marked too: a receiver may take it out of the
 * stream.
 */
function marksNothingNew(
  stream: TcpStream,
  parts: Pick<SegmentParts, 'frame' | 'transportAt' | 'sequence' | 'flags'>,
): boolean {
  return (parts.flags & tcpFlag.urg) === 0 || stream.sUrgents?.includes(urgentEnd(parts)) === true;
}
