// Compares one TCP connection of the PVM with the SVM's, and says what may leave (docs/comparison.md has the rules).
//
// - Payload is a byte stream: the part of a segment that is equal leaves, cut off as a frame of its own if need be.
// - Nothing leaves that acknowledges, or opens the window, beyond what both guests did. What the PVM wanted to say beyond
//   that is *owed*, and said by an ACK of ours when the SVM has caught up.
// - SYN, FIN and RST leave when the SVM has sent them at the same place.
// - What has left once (or is covered by a commit) may leave again at once.
// - No TSval leaves that is beyond the SVM's latest, or before one that has left. So whoever carries the connection on is
//   never behind what the client has seen, and the client drops nothing as an old duplicate (RFC 7323, PAWS).
//
// A segment that leaves whole is changed where it lies, and what is kept lies in pooled buffers: equal traffic allocates
// nothing per frame.

import { flowText } from '../../packet/flow-key.ts';
import { FrameView } from '../../packet/frame-view.ts';
import { advance, distance, earlier, later } from '../../packet/sequence.ts';
import { type SynOptions, synOptions, tcpFlag } from '../../packet/tcp.ts';
import { asBuffer, equalPrefix } from '../byte-stream.ts';
import type { Connection } from '../connection.ts';
import type { FramePool } from '../frame-pool.ts';
import { proxyLimits, windowUpdateBytes } from '../limits.ts';
import type { DivergenceKind } from '../reason.ts';
import {
  ackTemplate,
  cutSegment,
  emptyParts,
  fillParts,
  pureAck,
  rewriteInPlace,
  type SegmentParts,
} from '../rewrite.ts';
import { coarseTimestampMask, coarseWindowBytes, type Similarity } from '../similarity.ts';
import type { CompareSink } from './sink.ts';
import { type Held, TcpStream } from './tcp-stream.ts';

const none = new Uint8Array(0);
const noFrame = Buffer.alloc(0);
const spareMax = 4096;

export class TcpComparer {
  epoch = 0;
  /** Bytes of the SVM kept for all connections. */
  aheadBytes = 0;
  /** Segments cut, ACKs made, held frames given up because their connection began anew. */
  split = 0;
  synthesised = 0;
  oldGeneration = 0;
  private readonly sink: CompareSink;
  private readonly aheadStreams = new Set<TcpStream>();
  private readonly parkedView = new FrameView();
  private now = 0;
  /** The held segment that still lies in the frame being looked at. */
  private fresh: Held | undefined = undefined;
  /** What the frame at hand may say. */
  private readonly out = { ack: 0, window: 0, timestamp: 0, edge: 0 };
  /** The segment at hand, where it is not held. */
  private readonly passing = emptyParts();
  private readonly spare: Held[] = [];
  private readonly pool: FramePool;
  private readonly similarity: Similarity;

  constructor(sink: CompareSink, pool: FramePool, similarity: Similarity) {
    this.sink = sink;
    this.pool = pool;
    this.similarity = similarity;
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
    if (view.isSyn && stream.isn !== view.sequence) this.restart(stream, view.sequence);
    if (view.isReset) return;
    this.notePrimary(stream, view);
    stream.rNext = stream.pNext;
    stream.rTimeKnown = stream.pTimeKnown;
    stream.rTime = stream.pTime;
    if (!view.hasAck) return;
    this.noteLeft(stream, view.ack, edgeOf(view, shiftOf(stream, view.flags)));
  }

  /** A frame of the PVM, in client space. */
  fromPrimary(connection: Connection<TcpStream>, view: FrameView, now: number, order: number): void {
    this.now = now;
    const stream = this.streamOf(connection);
    if (view.isSyn && stream.isn !== view.sequence) this.restart(stream, view.sequence);
    if (view.isReset) this.hold(stream, view, order);
    else {
      this.notePrimary(stream, view);
      const bytes = view.payloadBytes + (view.isSyn ? 1 : 0) + (view.isFin ? 1 : 0);
      if (bytes === 0) this.fromPrimaryPureAck(stream, view);
      else if (this.isOldNews(stream, view, bytes)) this.leaveWhole(stream, fillParts(this.passing, view), undefined);
      else this.hold(stream, view, order);
    }
    this.progress(stream);
    if (this.fresh !== undefined) this.own(this.fresh);
    this.fresh = undefined;
    this.settle(stream);
  }

  /** A frame of the SVM of this epoch, in client space. */
  fromSecondary(connection: Connection<TcpStream>, view: FrameView, now: number): void {
    this.now = now;
    const stream = this.streamOf(connection);
    if (stream.parked.length > 0 || (view.isSyn && stream.isn !== view.sequence)) this.park(stream, view);
    else this.takeSecondary(stream, view);
    this.settle(stream);
  }

  private takeSecondary(stream: TcpStream, view: FrameView): void {
    // The PVM has begun anew: until the SVM's SYN comes, this is still the old connection.
    if (stream.isn !== undefined && !stream.sSynSeen && !view.isSyn) return;
    if (view.isSyn) this.takeSecondarySyn(stream, view);
    if (view.timestampsAt !== 0 && !view.isReset) {
      stream.sTime = stream.sTimeKnown ? later(stream.sTime, view.timestamp) : view.timestamp;
      stream.sTimeKnown = true;
    }
    if (!stream.sKnown && !view.isReset) {
      stream.sKnown = true;
      stream.ahead.reset(view.sequence);
      stream.ahead.consume(stream.rNext);
    }
    if (view.hasAck) this.takeSecondaryAck(stream, view);
    if (view.isReset) {
      if (!stream.sResets.includes(view.sequence)) stream.sResets.push(view.sequence);
      if (stream.sResets.length > proxyLimits.resetsMax) stream.sResets.shift();
    } else if (!stream.diverged) this.takeSecondaryBytes(stream, view);
    this.progress(stream);
    stream.ahead.keep();
  }

  private takeSecondarySyn(stream: TcpStream, view: FrameView): void {
    if (view.hasAck) stream.sSynAckSeen = true;
    if (stream.sSynSeen) return;
    stream.sSynSeen = true;
    stream.sKnown = true;
    stream.sSyn = synOptions(view.frame, view.transportAt);
    stream.sSynFlags = view.flags;
    stream.ahead.reset(advance(view.sequence, 1));
  }

  private takeSecondaryAck(stream: TcpStream, view: FrameView): void {
    const edge = edgeOf(view, shiftOf(stream, view.flags));
    stream.sAck = stream.sAckKnown ? later(stream.sAck, view.ack) : view.ack;
    stream.sEdge = stream.sAckKnown ? later(stream.sEdge, edge) : edge;
    stream.sAckKnown = true;
  }

  private takeSecondaryBytes(stream: TcpStream, view: FrameView): void {
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
    this.sink.want({ kind: 'limit', connection: this.text(stream), detail: 'the secondary is too far ahead' });
  }

  private park(stream: TcpStream, view: FrameView): void {
    if (view.isSyn && (stream.parked.length === 0 || view.sequence !== stream.parkedIsn)) {
      stream.parked = [];
      stream.parkedBytes = 0;
      stream.parkedIsn = view.sequence;
    }
    if (stream.parkedBytes + view.frame.length > proxyLimits.aheadBytesPerConnectionMax) {
      this.sink.want({
        kind: 'limit',
        connection: this.text(stream),
        detail: 'the secondary began a connection alone',
      });
      return;
    }
    stream.parked.push(Buffer.from(view.frame));
    stream.parkedBytes += view.frame.length;
  }

  /** The PVM begins a connection on this 5-tuple: nothing of an older one counts any more. */
  private restart(stream: TcpStream, isn: number): void {
    this.oldGeneration += stream.held.length;
    this.dropHeld(stream);
    const parked = stream.parked.length > 0 && stream.parkedIsn === isn ? stream.parked : [];
    stream.parked = [];
    stream.parkedBytes = 0;
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
    this.clearSecondary(stream);
    for (const frame of parked) this.takeSecondary(stream, this.parkedView.parse(frame));
  }

  private clearSecondary(stream: TcpStream): void {
    stream.sKnown = false;
    stream.sSynSeen = false;
    stream.sSyn = undefined;
    stream.sSynAckSeen = false;
    stream.sAckKnown = false;
    stream.sTimeKnown = false;
    stream.sFinAt = undefined;
    stream.sResets = [];
    stream.ahead.reset(stream.rNext);
  }

  /** The first look at a stream in a new epoch: the SVM was loaded with the PVM's state of the capture. */
  private enterEpoch(stream: TcpStream): void {
    if (stream.epoch === this.epoch) return;
    stream.epoch = this.epoch;
    stream.diverged = false;
    stream.parked = [];
    stream.parkedBytes = 0;
    stream.rNext = stream.pNext;
    this.clearSecondary(stream);
    stream.sKnown = stream.pKnown;
    stream.sSynSeen = stream.pKnown;
    stream.sAckKnown = stream.pAckKnown;
    stream.sAck = stream.pAck;
    stream.sEdge = stream.pEdge;
    stream.sTimeKnown = stream.pTimeKnown;
    stream.sTime = stream.pTime;
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
    const end = advance(view.sequence, bytes);
    return distance(end, stream.rNext) <= 0 && (!view.hasAck || stream.sAckKnown);
  }

  private fromPrimaryPureAck(stream: TcpStream, view: FrameView): void {
    const isAllowed = stream.sAckKnown && distance(view.ack, stream.sAck) <= 0;
    if (!isAllowed) {
      this.owe(stream, ackTemplate(view));
      return;
    }
    const parts = fillParts(this.passing, view);
    this.clamp(stream, parts);
    const isChanged = this.out.ack !== parts.ack || this.out.window !== parts.window;
    if (isChanged) this.owe(stream, ackTemplate(view));
    // A changed ACK that says nothing new would look like a duplicate one: like a loss.
    if (isChanged && stream.rAckKnown && this.saysNothingNew(stream)) return;
    const isAhead = distance(view.sequence, stream.rNext) > 0;
    const frame = isAhead ? pureAck(parts, stream.rNext, this.out) : rewriteInPlace(parts, this.out);
    this.sink.leave(frame, 'other', undefined);
    this.noteSaid(stream, parts);
  }

  private saysNothingNew(stream: TcpStream): boolean {
    return distance(this.out.ack, stream.rAck) <= 0 && distance(this.out.edge, stream.rEdge) <= 0;
  }

  /** Fills `out` with what `parts` may say. What was said before may always be said again. */
  private clamp(stream: TcpStream, parts: SegmentParts): void {
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

  /** What `out` says has left with a segment made from `parts`. */
  private noteSaid(stream: TcpStream, parts: SegmentParts): void {
    if (parts.timestampsAt !== 0) {
      stream.rTime = this.out.timestamp;
      stream.rTimeKnown = true;
    }
    if ((parts.flags & tcpFlag.ack) !== 0) this.noteLeft(stream, this.out.ack, this.out.edge);
  }

  private noteLeft(stream: TcpStream, ack: number, edge: number): void {
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

  private owe(stream: TcpStream, template: SegmentParts): void {
    // The options of a SYN do not belong into an ACK, and the next segment says the window again.
    if ((template.flags & tcpFlag.syn) !== 0) return;
    const edge = edgeOf(template, shiftOf(stream, template.flags));
    const owed = stream.owed;
    const ack = owed === undefined ? template.ack : later(owed.ack, template.ack);
    const furthest = owed === undefined ? edge : later(owed.edge, edge);
    stream.owed = { template, ack, edge: furthest, since: owed?.since ?? this.now };
  }

  /** Says what is owed as far as the SVM has come. */
  private payOwed(stream: TcpStream, isCommit = false): void {
    const owed = stream.owed;
    if (owed === undefined || !stream.sAckKnown) return;
    if (this.similarity.acks === 'held' && !isCommit) return;
    const shift = stream.connection.windowShift;
    const window = Math.min(Math.max(0, distance(owed.edge, owed.ack)) >>> shift, 0xffff);
    this.clamp(stream, { ...owed.template, flags: tcpFlag.ack, ack: owed.ack, window });
    const gain = stream.rAckKnown ? distance(this.out.edge, stream.rEdge) : 1;
    const wasShut = !stream.rAckKnown || distance(stream.rEdge, stream.rAck) <= 0;
    const isNewAck = !stream.rAckKnown || distance(this.out.ack, stream.rAck) > 0;
    if (!isNewAck && gain < windowUpdateBytes && !(wasShut && gain > 0)) return;
    owed.since = this.now;
    this.synthesised += 1;
    this.sink.leave(pureAck(owed.template, stream.rNext, this.out), 'part', undefined);
    this.noteSaid(stream, owed.template);
    if (stream.owed === owed && distance(owed.ack, stream.rAck) <= 0 && this.out.window >= window) {
      stream.owed = undefined;
    }
  }

  /** What is owed although the SVM should have said it by now: an acknowledgement, or a window that is all but shut. */
  owedSince(stream: TcpStream): number | undefined {
    const owed = stream.owed;
    if (owed === undefined) return undefined;
    if (!stream.rAckKnown || distance(owed.ack, stream.rAck) > 0) return owed.since;
    const isShut = distance(stream.rEdge, stream.rAck) < windowUpdateBytes;
    return isShut && distance(owed.edge, stream.rEdge) >= windowUpdateBytes ? owed.since : undefined;
  }

  private hold(stream: TcpStream, view: FrameView, order: number): void {
    const held = this.takeSpare(view, order);
    let at = stream.held.length;
    if (!view.isReset) {
      while (at > 0 && isBehind(stream.held[at - 1] as Held, held)) at -= 1;
      if (isRepeated(stream.held[at - 1], held) || isRepeated(stream.held[at], held)) {
        if (view.hasAck) this.owe(stream, ackTemplate(view));
        this.giveBack(held);
        return;
      }
    }
    if (at === stream.held.length) stream.held.push(held);
    else stream.held.splice(at, 0, held);
    this.fresh = held;
    stream.heldBytes += held.frame.length;
    this.sink.heldChanged(1, held.frame.length);
  }

  private takeSpare(view: FrameView, order: number): Held {
    const held = this.spare.pop() ?? { ...emptyParts(), time: 0, order: 0, owned: false };
    held.time = this.now;
    held.order = order;
    return fillParts(held, view);
  }

  /** Nothing refers to `held` any more. */
  private giveBack(held: Held): void {
    if (held.owned) this.pool.giveBack(held.frame as Buffer);
    held.owned = false;
    held.frame = noFrame;
    if (this.spare.length < spareMax) this.spare.push(held);
  }

  /** A frame kept beyond the call that brought it must be ours. */
  private own(held: Held): void {
    if (held.owned) return;
    held.frame = this.pool.copy(held.frame, 0, held.frame.length);
    held.owned = true;
  }

  /** Lets leave what the SVM has confirmed, from the oldest on. */
  private progress(stream: TcpStream): void {
    while (stream.held.length > 0 && !stream.diverged) {
      const head = stream.held[0] as Held;
      if (!this.tryHead(stream, head)) break;
    }
    this.payOwed(stream);
  }

  /** True when the head has left whole. */
  private tryHead(stream: TcpStream, head: Held): boolean {
    if ((head.flags & tcpFlag.rst) !== 0) return this.tryReset(stream, head);
    if ((head.flags & tcpFlag.ack) !== 0 && !stream.sAckKnown) return false;
    if ((head.flags & tcpFlag.syn) !== 0) return this.trySyn(stream, head);
    if (distance(head.sequence, stream.rNext) > 0) return this.blocked(stream);
    return this.tryBytes(stream, head);
  }

  private tryReset(stream: TcpStream, head: Held): boolean {
    if (!stream.sResets.includes(head.sequence)) return false;
    this.finishHead(stream, head);
    return true;
  }

  private trySyn(stream: TcpStream, head: Held): boolean {
    if (stream.sSyn === undefined) return distance(head.sequence, stream.rNext) < 0 && this.finishHead(stream, head);
    // Simultaneous open: both guests sent SYN, and the PVM has answered the client's. So will the SVM.
    const isAnswer = distance(head.sequence, stream.rNext) < 0 && (head.flags & tcpFlag.ack) !== 0;
    if (isAnswer && !stream.sSynAckSeen) return this.blocked(stream);
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
    const from = advance(head.sequence, done);
    if (rest > 0) {
      const here = stream.sKnown && distance(from, stream.ahead.base) >= 0 ? distance(stream.ahead.next, from) : 0;
      const count = Math.max(0, Math.min(here, rest));
      const equal = stream.ahead.equalBytes(from, asBuffer(head.frame), head.payloadAt + done, count);
      if (equal < count) return this.divergePayload(stream, head, from, equal);
      if (count < rest) return this.waitForMore(stream, head, done, count);
    }
    if ((head.flags & tcpFlag.fin) !== 0 && !this.finAgrees(stream, head, done)) return false;
    return this.finishHead(stream, head);
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
    if (distance(finAt, stream.rNext) < 0 || stream.sFinAt === finAt) return true;
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
    const what = { kind, connection: this.text(stream), offset, primary, secondary };
    this.sink.diverged(detail === undefined ? what : { ...what, detail });
    return false;
  }

  /** Lets bytes [from, to) of the payload leave; the head stays with the rest. */
  private leavePart(stream: TcpStream, head: Held, from: number, to: number): void {
    this.clamp(stream, head);
    this.split += 1;
    this.sink.leave(cutSegment(head, from, to, false, this.out), 'part', head);
    this.left(stream, head, advance(head.sequence, to));
  }

  /** Lets what is left of the head leave, and takes it from the list. */
  private finishHead(stream: TcpStream, head: Held): true {
    if (stream.held.length === 1) stream.held.pop();
    else stream.held.shift();
    if (head === this.fresh) this.fresh = undefined;
    stream.heldBytes -= head.frame.length;
    this.sink.heldChanged(-1, -head.frame.length);
    this.leaveWhole(stream, head, head);
    this.giveBack(head);
    return true;
  }

  /** A frame leaves as it is, clamped; bytes that have left before are cut off if they are only a part of it. */
  private leaveWhole(stream: TcpStream, parts: SegmentParts, held: Held | undefined): void {
    this.clamp(stream, parts);
    const isSyn = (parts.flags & tcpFlag.syn) !== 0;
    const bytes = parts.payloadBytes + (isSyn ? 1 : 0) + ((parts.flags & tcpFlag.fin) !== 0 ? 1 : 0);
    const done = distance(stream.rNext, parts.sequence);
    const isTail = !isSyn && done > 0 && done < bytes;
    const frameClass = parts.payloadBytes > 0 ? 'data' : 'other';
    const frame = isTail
      ? cutSegment(parts, done, parts.payloadBytes, true, this.out)
      : rewriteInPlace(parts, this.out);
    this.sink.leave(frame, frameClass, held);
    if ((parts.flags & tcpFlag.rst) === 0) this.left(stream, parts, advance(parts.sequence, bytes));
  }

  private left(stream: TcpStream, parts: SegmentParts, next: number): void {
    stream.rNext = later(stream.rNext, next);
    stream.ahead.consume(stream.rNext);
    if (stream.sFinAt !== undefined && distance(stream.sFinAt, stream.rNext) < 0) stream.sFinAt = undefined;
    if ((parts.flags & tcpFlag.ack) !== 0) {
      const wanted = edgeOf(parts, shiftOf(stream, parts.flags));
      const isLess = distance(this.out.ack, parts.ack) < 0 || distance(this.out.edge, wanted) < 0;
      if (isLess) this.owe(stream, { ...parts, frame: Buffer.from(parts.frame.subarray(0, parts.payloadAt)) });
    }
    this.noteSaid(stream, parts);
  }

  /** A commit covers everything held: it leaves in the order that the proxy chooses. */
  leaveByCommit(stream: TcpStream, held: Held, now: number): void {
    this.now = now;
    this.enterEpoch(stream);
    this.leaveWhole(stream, { ...held }, held);
  }

  /** Takes what is held off the stream, for `leaveByCommit`. */
  takeHeld(stream: TcpStream): Held[] {
    const held = stream.held;
    this.sink.heldChanged(-held.length, -stream.heldBytes);
    stream.held = [];
    stream.heldBytes = 0;
    return held;
  }

  /** After the held frames of a commit have left: what is owed is covered too. */
  afterCommit(stream: TcpStream, now: number): void {
    this.now = now;
    this.enterEpoch(stream);
    this.payOwed(stream, true);
    this.settle(stream);
  }

  /** An acknowledgement that the client has not been given, as the PVM meant it; for the survivor. */
  owedFrame(stream: TcpStream): Uint8Array | undefined {
    const owed = stream.owed;
    if (owed === undefined) return undefined;
    const window = Math.min(Math.max(0, distance(owed.edge, owed.ack)) >>> stream.connection.windowShift, 0xffff);
    return Buffer.from(pureAck(owed.template, stream.pNext, { ack: owed.ack, window, timestamp: stream.pTime }));
  }

  /** The connection is forgotten: so is everything that waits in it. */
  abandon(stream: TcpStream): void {
    this.dropHeld(stream);
    stream.owed = undefined;
    stream.parked = [];
    stream.parkedBytes = 0;
    stream.ahead.reset(stream.rNext);
    this.settle(stream);
  }

  private dropHeld(stream: TcpStream): void {
    if (stream.held.length === 0) return;
    this.sink.heldChanged(-stream.held.length, -stream.heldBytes);
    stream.held = [];
    stream.heldBytes = 0;
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

  text(stream: TcpStream): string {
    return flowText(stream.connection.key, 'tcp');
  }
}

/** The window of a SYN is never scaled. */
function shiftOf(stream: TcpStream, flags: number): number {
  return (flags & tcpFlag.syn) !== 0 ? 0 : stream.connection.windowShift;
}

function edgeOf(parts: { ack: number; window: number }, shift: number): number {
  return advance(parts.ack, parts.window << shift);
}

function isBehind(other: Held, held: Held): boolean {
  return (other.flags & tcpFlag.rst) === 0 && distance(other.sequence, held.sequence) > 0;
}

/** Whether `other`, which waits already, says all that `held` says. */
function isRepeated(other: Held | undefined, held: Held): boolean {
  if (other === undefined || ((other.flags ^ held.flags) & (tcpFlag.syn | tcpFlag.rst)) !== 0) return false;
  const ends = (parts: Held) => advance(parts.sequence, parts.payloadBytes + (parts.flags & tcpFlag.fin));
  if (distance(other.sequence, held.sequence) > 0 || distance(ends(other), ends(held)) < 0) return false;
  const at = distance(held.sequence, other.sequence);
  const from = other.payloadAt + at;
  const count = held.payloadBytes;
  return equalPrefix(asBuffer(other.frame), from, asBuffer(held.frame), held.payloadAt, count) === count;
}

/** What two SYNs of one connection negotiate differently. */
function synDifference(stream: TcpStream, head: Held): string | undefined {
  const secondary = stream.sSyn as SynOptions;
  const primary = synOptions(head.frame, head.transportAt);
  const isAnswer = (head.flags & tcpFlag.ack) !== 0;
  const hasAnswered = (stream.sSynFlags & tcpFlag.ack) !== 0 || (isAnswer && stream.sSynAckSeen);
  if (isAnswer !== hasAnswered) return 'one side sent SYN, the other SYN-ACK';
  if (primary.kinds !== secondary.kinds) return 'the two SYNs carry different options';
  if (primary.mss !== secondary.mss) return `maximum segment size ${primary.mss} against ${secondary.mss}`;
  if (primary.windowScale === secondary.windowScale) return undefined;
  return `window scale ${primary.windowScale ?? 'none'} against ${secondary.windowScale ?? 'none'}`;
}
