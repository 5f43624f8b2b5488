// Compares what is not TCP: per flow, as a bounded multiset. The PVM's datagrams leave in its order, each when the SVM
// has sent an equal one; the SVM may send them in another order. Equal datagrams count: two of the PVM need two of the
// SVM.
//
// When a different datagram of the SVM waits, the PVM's may still be matched by a later one: only after a short grace
// is it a divergence.
//
// Fragments are collected in a flow of their own, one per packet and side. When the packet is whole it moves, with its
// fragments, into the flow that it would have been in had it come whole.

import { FrameView } from '../../packet/frame-view.ts';
import { FlowMap } from '../connections/flow-map.ts';
import { asBuffer, equalPrefix } from '../frames/byte-stream.ts';
import { assemble, type Piece, pieceOf } from '../frames/fragments.ts';
import type { FramePool } from '../frames/frame-pool.ts';
import { proxyLimits, reorderGraceMs, sparePiecesMax } from '../limits.ts';
import { classOf, type Datagram, DatagramFlow, emptyDatagram, isEqual, noFrame } from './datagram-flow.ts';
import type { CompareSink } from './sink.ts';

export class DatagramComparer {
  private readonly sink: CompareSink;
  private readonly pool: FramePool;
  private readonly flows = new FlowMap<DatagramFlow>();
  private readonly spare: Datagram[] = [];
  private readonly wholeView = new FrameView();
  private sweepAt: number = proxyLimits.idleFlowsMax;
  /** Packets of the PVM and bytes of them of which fragments are missing. */
  private partialPackets = 0;
  private partialBytes = 0;
  /** Bytes of the SVM, in all flows. */
  aheadBytes = 0;

  constructor(sink: CompareSink, pool: FramePool) {
    this.sink = sink;
    this.pool = pool;
  }

  /** Returns the flow, whose limits the caller checks. */
  fromPrimary(view: FrameView, now: number, order: number): DatagramFlow {
    const flow = this.flowOf(view);
    if (view.kind === 'fragment') return this.collectPrimary(flow, view, now, order);
    const held = this.datagramOf(view, now, order);
    this.sink.heldChanged(1, held.frame.length);
    flow.heldBytes += held.frame.length;
    this.enterPrimary(flow, held);
    return flow;
  }

  private enterPrimary(flow: DatagramFlow, held: Datagram): void {
    this.matchAhead(flow, held);
    flow.held.push(held);
    this.progress(flow);
    const last = flow.held[flow.held.length - 1];
    if (last !== undefined) this.own(last);
    this.settle(flow);
  }

  /** A fragment of the PVM. Returns the flow of its packet: the whole one's, once it is whole. */
  private collectPrimary(flow: DatagramFlow, view: FrameView, now: number, order: number): DatagramFlow {
    const piece = pieceOf(view, order);
    const bytes = piece.frame.length;
    let held = flow.held[0];
    if (held === undefined) {
      held = this.collecting(now, order);
      flow.held.push(held);
      this.partialPackets += 1;
    }
    held.pieces?.push(piece);
    flow.heldBytes += bytes;
    this.partialBytes += bytes;
    this.sink.heldChanged(1, bytes);
    const whole = this.complete(held);
    if (whole === undefined) {
      this.settle(flow);
      this.checkPartial(flow);
      return flow;
    }
    flow.held.length = 0;
    whole.heldBytes += flow.heldBytes;
    this.leavePartial(flow);
    this.settle(flow);
    this.enterPrimary(whole, held);
    return whole;
  }

  private leavePartial(flow: DatagramFlow): void {
    this.partialPackets -= 1;
    this.partialBytes -= flow.heldBytes;
    flow.heldBytes = 0;
  }

  private checkPartial(flow: DatagramFlow): void {
    const { fragmentedMax, fragmentedBytesMax } = proxyLimits;
    if (this.partialPackets <= fragmentedMax && this.partialBytes <= fragmentedBytesMax) return;
    this.sink.want({ kind: 'limit', connection: flow.text, detail: 'too many packets miss fragments' });
  }

  /** A fragment of the SVM. */
  private collectSecondary(flow: DatagramFlow, view: FrameView, now: number, id: number): void {
    const piece = pieceOf(view, id);
    if (this.aheadBytes + piece.frame.length > proxyLimits.datagramsAheadBytesAllMax) return;
    let datagram = flow.ahead[0];
    if (datagram === undefined) {
      datagram = this.collecting(now, id);
      flow.ahead.push(datagram);
    }
    datagram.pieces?.push(piece);
    this.countAhead(flow, piece.frame.length);
    const whole = this.complete(datagram);
    if (whole !== undefined) {
      flow.ahead.length = 0;
      this.countAhead(flow, -flow.aheadBytes);
      this.enterSecondary(whole, datagram);
    } else if ((datagram.pieces?.length ?? 0) > proxyLimits.fragmentsPerPacketMax) this.forgetOldestAhead(flow);
    this.settle(flow);
  }

  private collecting(now: number, order: number): Datagram {
    const datagram = this.takeSpare();
    datagram.time = now;
    datagram.order = order;
    datagram.pieces = [];
    return datagram;
  }

  /** The flow of the whole packet, which `datagram` then is; undefined while something is missing. */
  private complete(datagram: Datagram): DatagramFlow | undefined {
    const frame = assemble(datagram.pieces ?? []);
    if (frame === undefined) return undefined;
    const view = this.wholeView.parse(frame);
    if (view.kind === 'tcp') view.takeIp();
    datagram.frame = frame;
    datagram.owned = true;
    datagram.contentFrom = view.contentFrom;
    datagram.contentTo = view.contentTo;
    return this.flowOf(view);
  }

  fromSecondary(view: FrameView, now: number, id: number): void {
    if (this.flows.size >= proxyLimits.flowsMax && this.flows.get(view.key) === undefined) return;
    const flow = this.flowOf(view);
    if (view.kind === 'fragment') this.collectSecondary(flow, view, now, id);
    else this.enterSecondary(flow, this.datagramOf(view, now, id));
  }

  private enterSecondary(flow: DatagramFlow, datagram: Datagram): void {
    const match = this.findHeld(flow, datagram);
    if (match === undefined) this.keepAhead(flow, datagram);
    else this.match(match, datagram);
    this.progress(flow);
    this.settle(flow);
  }

  private findHeld(flow: DatagramFlow, datagram: Datagram): Datagram | undefined {
    for (let at = 0; at < flow.held.length; at += 1) {
      const held = flow.held[at] as Datagram;
      if (!held.isMatched && isEqual(held, datagram)) return held;
    }
    return undefined;
  }

  private match(held: Datagram, datagram: Datagram): void {
    held.isMatched = true;
    held.matchedId = datagram.order;
    held.matchedPieces = datagram.pieces;
    this.giveBack(datagram);
  }

  private flowOf(view: FrameView): DatagramFlow {
    let flow = this.flows.get(view.key);
    if (flow !== undefined) return flow;
    if (this.flows.size >= this.sweepAt) this.forgetIdle();
    flow = new DatagramFlow(view);
    this.flows.add(flow);
    return flow;
  }

  private forgetIdle(): void {
    for (const flow of this.flows.values()) {
      if (flow.held.length === 0 && flow.ahead.length === 0) this.flows.delete(flow);
    }
    this.sweepAt = Math.max(proxyLimits.idleFlowsMax, 2 * this.flows.size);
  }

  private matchAhead(flow: DatagramFlow, held: Datagram): void {
    for (let at = 0; at < flow.ahead.length; at += 1) {
      const datagram = flow.ahead[at] as Datagram;
      if (!isEqual(held, datagram)) continue;
      if (at === flow.ahead.length - 1) flow.ahead.pop();
      else if (at === 0) flow.ahead.shift();
      else flow.ahead.splice(at, 1);
      this.countAhead(flow, -datagram.frame.length);
      this.match(held, datagram);
      return;
    }
  }

  private countAhead(flow: DatagramFlow, bytes: number): void {
    flow.aheadBytes += bytes;
    this.aheadBytes += bytes;
  }

  private keepAhead(flow: DatagramFlow, datagram: Datagram): void {
    if (this.aheadBytes + datagram.frame.length > proxyLimits.datagramsAheadBytesAllMax) {
      this.giveBack(datagram);
      return;
    }
    this.own(datagram);
    flow.ahead.push(datagram);
    this.countAhead(flow, datagram.frame.length);
    while (
      flow.ahead.length > proxyLimits.datagramsAheadMax ||
      (flow.aheadBytes > proxyLimits.datagramsAheadBytesMax && flow.ahead.length > 1)
    ) {
      this.forgetOldestAhead(flow);
    }
  }

  /**
   * It is compared no more. The secondary is not told: it keeps what its guest has said until a checkpoint, and says it
   * at a takeover, for nobody else has.
   */
  private forgetOldestAhead(flow: DatagramFlow): void {
    const oldest = flow.ahead.shift();
    if (oldest !== undefined) this.countAhead(flow, flow.kind === 'fragment' ? -flow.aheadBytes : -oldest.frame.length);
  }

  private progress(flow: DatagramFlow): void {
    for (;;) {
      const head = flow.held[0];
      if (head?.isMatched !== true) return;
      if (flow.held.length === 1) flow.held.pop();
      else flow.held.shift();
      if (head.pieces === undefined) {
        flow.heldBytes -= head.frame.length;
        this.sink.heldChanged(-1, -head.frame.length);
        this.sink.leave(
          head.frame,
          classOf(flow),
          head,
          head.matchedPieces?.map(({ order }) => order) ?? head.matchedId,
        );
      } else this.leavePieces(flow, head, head.pieces);
      this.giveBack(head);
    }
  }

  /** The fragments leave as they came; the SVM's are confirmed one by one, as far as they are as many. */
  private leavePieces(flow: DatagramFlow, head: Datagram, pieces: readonly Piece[]): void {
    const ids = head.matchedPieces?.map(({ order }) => order) ?? [head.matchedId];
    pieces.forEach(({ frame }, index) => {
      flow.heldBytes -= frame.length;
      this.sink.heldChanged(-1, -frame.length);
      const matched = index < pieces.length - 1 ? ids[index] : ids.slice(index);
      this.sink.leave(frame, index === 0 ? classOf(flow) : 'other', head, matched);
    });
  }

  /** Time has passed: says whether the two sides differ, and forgets what the PVM never sent. */
  poll(flow: DatagramFlow, now: number): void {
    while (flow.ahead[0] !== undefined && now - flow.ahead[0].time >= proxyLimits.datagramAheadMs) {
      this.forgetOldestAhead(flow);
    }
    const head = flow.held[0];
    const other = flow.ahead[0];
    if (head !== undefined && other !== undefined && !flow.diverged && flow.kind !== 'fragment') {
      const bothSince = Math.max(head.time, other.time);
      if (now - bothSince > reorderGraceMs) this.diverge(flow, head, other);
    }
    this.settle(flow);
  }

  private diverge(flow: DatagramFlow, head: Datagram, other: Datagram): void {
    flow.diverged = true;
    const count = Math.min(head.contentTo - head.contentFrom, other.contentTo - other.contentFrom);
    const offset = equalPrefix(head.frame, head.contentFrom, other.frame, other.contentFrom, count);
    const around = ({ frame, contentFrom, contentTo }: Datagram) =>
      frame.subarray(contentFrom + offset, Math.min(contentTo, contentFrom + offset + proxyLimits.divergenceBytes));
    const sides = { primary: around(head), secondary: around(other) };
    this.sink.diverged({ kind: 'payload', connection: flow.text, offset, ...sides });
  }

  /** Every frame that is held in the flow, with how it leaves at a commit. */
  forEachHeld(flow: DatagramFlow, visit: (order: number, frame: Uint8Array, leave: () => void) => void): void {
    for (const held of flow.held) {
      const { pieces, order, frame } = held;
      if (pieces === undefined) visit(order, frame, () => this.sink.leave(frame, classOf(flow), held));
      else
        for (const piece of pieces) visit(piece.order, piece.frame, () => this.sink.leave(piece.frame, 'other', held));
    }
  }

  takeHeld(flow: DatagramFlow): void {
    const frames = flow.held.reduce((sum, { pieces }) => sum + (pieces?.length ?? 1), 0);
    this.sink.heldChanged(-frames, -flow.heldBytes);
    if (flow.kind === 'fragment' && flow.held.length > 0) this.leavePartial(flow);
    flow.held = [];
    flow.heldBytes = 0;
  }

  /** A commit: what the SVM sent in the old epoch says nothing about the new one. */
  beginEpoch(): void {
    for (const flow of this.flows.values()) {
      flow.ahead = [];
      this.countAhead(flow, -flow.aheadBytes);
      flow.diverged = false;
      this.settle(flow);
    }
  }

  private settle(flow: DatagramFlow): void {
    const waits = flow.held.length > 0 || flow.ahead.length > 0;
    if (waits && flow.activeIndex < 0) this.sink.activate(flow);
    if (!waits && flow.activeIndex >= 0) this.sink.deactivate(flow);
  }

  private datagramOf(view: FrameView, time: number, order: number): Datagram {
    const datagram = this.takeSpare();
    datagram.frame = asBuffer(view.frame);
    datagram.contentFrom = view.contentFrom;
    datagram.contentTo = view.contentTo;
    datagram.time = time;
    datagram.order = order;
    return datagram;
  }

  private takeSpare(): Datagram {
    return this.spare.pop() ?? emptyDatagram();
  }

  /** Nothing refers to `datagram` any more. */
  private giveBack(datagram: Datagram): void {
    if (datagram.owned && datagram.pieces === undefined) this.pool.giveBack(datagram.frame);
    datagram.frame = noFrame;
    datagram.owned = false;
    datagram.isMatched = false;
    datagram.pieces = undefined;
    datagram.matchedPieces = undefined;
    if (this.spare.length < sparePiecesMax) this.spare.push(datagram);
  }

  private own(datagram: Datagram): void {
    if (datagram.owned) return;
    datagram.frame = this.pool.copy(datagram.frame, 0, datagram.frame.length);
    datagram.owned = true;
  }
}
