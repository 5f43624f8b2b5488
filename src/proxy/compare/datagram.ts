// Compares what is not TCP: per flow, as a bounded multiset. The PVM's datagrams leave in its order, each when the SVM has
// sent an equal one; the SVM may send them in another order.
//
// When a different datagram of the SVM waits, the PVM's may still be matched by a later one: only after a short grace is
// it a divergence.

import { flowText } from '../../packet/flow-key.ts';
import type { FrameKind, FrameView } from '../../packet/frame-view.ts';
import { asBuffer, equalPrefix } from '../byte-stream.ts';
import { portsOf } from '../connection.ts';
import { type FlowEntry, FlowMap } from '../flow-map.ts';
import { proxyLimits, reorderGraceMs } from '../limits.ts';
import type { ActiveFlow, CompareSink, FrameClass } from './sink.ts';

interface Datagram {
  frame: Buffer;
  contentFrom: number;
  contentTo: number;
  time: number;
  /** PVM: its place in everything the guest sent. SVM: its id. */
  order: number;
  owned: boolean;
  /** PVM: the SVM's datagram that equals it; it leaves when it is the oldest. */
  matchedId: number | undefined;
}

export class DatagramFlow implements FlowEntry<DatagramFlow>, ActiveFlow {
  readonly a: number;
  readonly b: number;
  readonly c: number;
  readonly d: number;
  next: DatagramFlow | undefined = undefined;
  activeIndex = -1;
  readonly kind: FrameKind;
  readonly text: string;
  held: Datagram[] = [];
  heldBytes = 0;
  ahead: Datagram[] = [];
  aheadBytes = 0;
  diverged = false;

  constructor(view: FrameView) {
    this.a = view.keyA;
    this.b = view.keyB;
    this.c = view.keyC;
    this.d = view.keyD;
    this.kind = view.kind;
    this.text = textOf(view);
  }
}

export class DatagramComparer {
  private readonly sink: CompareSink;
  private readonly flows = new FlowMap<DatagramFlow>();
  private sweepAt: number = proxyLimits.idleFlowsMax;

  constructor(sink: CompareSink) {
    this.sink = sink;
  }

  /** Returns the flow, whose limits the caller checks. */
  fromPrimary(view: FrameView, now: number, order: number): DatagramFlow {
    const flow = this.flowOf(view);
    const held = datagramOf(view, now, order);
    held.matchedId = this.takeAhead(flow, held);
    flow.held.push(held);
    flow.heldBytes += held.frame.length;
    this.sink.heldChanged(1, held.frame.length);
    this.progress(flow);
    const last = flow.held[flow.held.length - 1];
    if (last !== undefined) own(last);
    this.settle(flow);
    return flow;
  }

  fromSecondary(view: FrameView, now: number, id: number): void {
    const isKnown = this.flows.get(view.keyA, view.keyB, view.keyC, view.keyD) !== undefined;
    if (!isKnown && this.flows.size >= proxyLimits.flowsMax) {
      this.sink.forget([id]);
      return;
    }
    const flow = this.flowOf(view);
    const datagram = datagramOf(view, now, id);
    const match = flow.held.find((held) => held.matchedId === undefined && isEqual(held, datagram));
    if (match !== undefined) match.matchedId = id;
    else this.keepAhead(flow, datagram);
    this.progress(flow);
    this.settle(flow);
  }

  private flowOf(view: FrameView): DatagramFlow {
    let flow = this.flows.get(view.keyA, view.keyB, view.keyC, view.keyD);
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

  private takeAhead(flow: DatagramFlow, held: Datagram): number | undefined {
    const at = flow.ahead.findIndex((datagram) => isEqual(held, datagram));
    const found = flow.ahead[at];
    if (found === undefined) return undefined;
    flow.ahead.splice(at, 1);
    flow.aheadBytes -= found.frame.length;
    return found.order;
  }

  private keepAhead(flow: DatagramFlow, datagram: Datagram): void {
    own(datagram);
    flow.ahead.push(datagram);
    flow.aheadBytes += datagram.frame.length;
    while (
      flow.ahead.length > proxyLimits.datagramsAheadMax ||
      (flow.aheadBytes > proxyLimits.datagramsAheadBytesMax && flow.ahead.length > 1)
    ) {
      this.forgetOldestAhead(flow);
    }
  }

  private forgetOldestAhead(flow: DatagramFlow): void {
    const oldest = flow.ahead.shift();
    if (oldest === undefined) return;
    flow.aheadBytes -= oldest.frame.length;
    this.sink.forget([oldest.order]);
  }

  private progress(flow: DatagramFlow): void {
    for (;;) {
      const head = flow.held[0];
      if (head?.matchedId === undefined) return;
      flow.held.shift();
      flow.heldBytes -= head.frame.length;
      this.sink.heldChanged(-1, -head.frame.length);
      this.sink.leave(head.frame, classOf(flow), head.time, head.matchedId);
    }
  }

  /** Time has passed: says whether the two sides differ, and forgets what the PVM never sent. */
  poll(flow: DatagramFlow, now: number): void {
    while (flow.ahead[0] !== undefined && now - flow.ahead[0].time >= proxyLimits.datagramAheadMs) {
      this.forgetOldestAhead(flow);
    }
    const head = flow.held[0];
    const other = flow.ahead[0];
    if (head !== undefined && other !== undefined && !flow.diverged) {
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

  takeHeld(flow: DatagramFlow): Datagram[] {
    const held = flow.held;
    this.sink.heldChanged(-held.length, -flow.heldBytes);
    flow.held = [];
    flow.heldBytes = 0;
    return held;
  }

  leaveByCommit(flow: DatagramFlow, held: Datagram): void {
    this.sink.leave(held.frame, classOf(flow), held.time);
  }

  /** A commit: what the SVM sent in the old epoch says nothing about the new one. */
  beginEpoch(): void {
    for (const flow of this.flows.values()) {
      flow.ahead = [];
      flow.aheadBytes = 0;
      flow.diverged = false;
      this.settle(flow);
    }
  }

  private settle(flow: DatagramFlow): void {
    const waits = flow.held.length > 0 || flow.ahead.length > 0;
    if (waits && flow.activeIndex < 0) this.sink.activate(flow);
    if (!waits && flow.activeIndex >= 0) this.sink.deactivate(flow);
  }
}

function classOf(flow: DatagramFlow): FrameClass {
  return flow.kind === 'udp' || flow.kind === 'icmp' ? 'data' : 'other';
}

function datagramOf(view: FrameView, time: number, order: number): Datagram {
  const { contentFrom, contentTo } = view;
  return { frame: asBuffer(view.frame), contentFrom, contentTo, time, order, owned: false, matchedId: undefined };
}

function own(datagram: Datagram): void {
  if (datagram.owned) return;
  datagram.frame = Buffer.from(datagram.frame);
  datagram.owned = true;
}

function isEqual(a: Datagram, b: Datagram): boolean {
  const count = a.contentTo - a.contentFrom;
  if (count !== b.contentTo - b.contentFrom) return false;
  return equalPrefix(a.frame, a.contentFrom, b.frame, b.contentFrom, count) === count;
}

function textOf(view: FrameView): string {
  if (view.kind === 'arp') return 'arp';
  if (view.kind === 'other') return `ethernet type ${view.keyD.toString(16)}`;
  const ports = view.kind === 'udp' ? portsOf(view.sourcePort, view.targetPort) : 0;
  const key = { guestIp: view.sourceIp, clientIp: view.targetIp, ports };
  return flowText(key, view.kind).replaceAll(view.kind === 'udp' ? /$^/g : /:0\b/g, '');
}
