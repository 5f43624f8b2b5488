// The proxy on the primary node: a pure core between the network, the PVM and the secondary node.
//
//    network ──► fromNetwork ──┬─ mirror ──────────────► secondary node
//                              └─ (guest space) ───────► PVM
//    network ◄── gate ◄── comparers ◄── (client space) ◄── fromGuest      PVM
//                             ▲
//                             └──────── fromSecondary ◄─── SVM, already in client space
//
// The output rule: a frame leaves only if the SVM has produced an equivalent one in the same epoch, or if the secondary
// holds, complete, a checkpoint taken after the frame was produced.
//
//    alone ──capture──► in flight ──commit──► protected ──capture──► in flight ...
//      ▲                    └──abort──► (where it came from)
//      └────────────────────────── goAlone ──────────────────────────────┘
//
// `capture` draws a line in the PVM's output. What came before goes on being compared with the SVM's output of the old
// epoch: if that matches, it may leave even while the checkpoint is in flight, because a secondary without the
// checkpoint has produced it and one with the checkpoint has a later state. What comes after the line waits unseen in
// `next`. So an abort needs no undoing, and at a commit the PVM's numbers are still those of the capture, which is
// where the SVM starts.
//
// The legal order of the verbs:
//
//    capture                when nothing is in flight (asserted)
//    commit, abort          one of them for each capture, by its epoch (asserted), unless goAlone has ended it
//    goAlone                with an open gate (asserted); it ends mirroring and the capture in flight
//    startMirroring         before the capture, for a secondary that is to have what comes in from now on;
//                           a capture begins it otherwise
//    resumed, tolerated, fromSecondary, notCaptured     at any time: what comes late says nothing
//    fromNetwork, fromGuest, setGate, settled, poll     at any time

import { assert } from '../base/assert.ts';
import { Fifo } from '../base/fifo.ts';
import type { Progress } from '../netdev/endpoint.ts';
import { type FlowKey, flowText } from '../packet/flow-key.ts';
import { FrameView } from '../packet/frame-view.ts';
import { Bypass, type BypassCount, type BypassRule } from './bypass.ts';
import { CheckpointRequest } from './checkpoint-request.ts';
import { ActiveFlows } from './compare/active-flows.ts';
import { DatagramComparer } from './compare/datagram.ts';
import type { DatagramFlow } from './compare/datagram-flow.ts';
import { type ActiveFlow, type CompareSink, classOf } from './compare/sink.ts';
import { TcpComparer } from './compare/tcp/comparer.ts';
import { TcpStream } from './compare/tcp/stream.ts';
import { packAnnouncement } from './connections/announcement.ts';
import { type Connection, hasClientReset, isInWindow, isKnownIsn } from './connections/connection.ts';
import { ConnectionTable } from './connections/connection-table.ts';
import { isTranslated, QuoteTranslator, toClientSpace, toGuestSpace } from './connections/translate.ts';
import { newPrimaryCounters, type PrimaryCounters } from './counters.ts';
import { FramePool } from './frames/frame-pool.ts';
import { proxyLimits } from './limits.ts';
import { Egress } from './output/egress.ts';
import type { Gate } from './output/gate.ts';
import { HeldOutput, type InOrder, type Waiting } from './output/held-output.ts';
import { Overdue } from './overdue.ts';
import { Patches, packPatch, packTable, patchesOf, tableOf, unpackPatch } from './patches.ts';
import type { CheckpointReason, DivergenceRecord } from './reason.ts';
import { defaultSimilarity, type Similarity } from './similarity.ts';

/**
 * A frame handed to a port is valid only during the call. A frame handed in by `fromGuest` may be changed where it
 * lies.
 */
export interface PrimaryPorts {
  toNetwork(frame: Uint8Array): void;
  toGuest(frame: Uint8Array): void;
  /** Ingress to the secondary, client space, in order. */
  mirror(frame: Uint8Array): void;
  /**
   * The PVM's ISN of a connection in client space, and what else the secondary must know of it (announcement.ts); in
   * the
   *  same ordered stream as `mirror`.
   */
  announceIsn(announcement: Uint8Array, isn: number): void;
  /**
   * SVM frames that the secondary may forget, because what they match has been written. Not told for TCP. The array is
   * valid
   *  only during the call.
   */
  confirm(ids: number[]): void;
  /**
   * What became of the frames given to `toNetwork`; `settled` of the proxy is called when it has got on later than
   * that.
   */
  readonly progress: Progress;
  /** Copies of those that have not been written yet. */
  unwritten(): Uint8Array[];
  /**
   * A time that the secondary is to take for its own (patches.ts), after everything mirrored before; it answers with
   * the same.
   */
  tolerate(patch: Uint8Array): void;
  wantCheckpoint(reason: CheckpointReason): void;
  pauseGuest(paused: boolean): void;
}

export interface PrimaryOptions {
  mode: 'colo' | 'remus';
  compareTimeoutMs: number;
  patienceMs: number;
  similarity?: Similarity;
  /** Traffic that leaves uncompared. */
  bypass?: readonly BypassRule[];
  /** This host's time, in milliseconds since 1970; without it no time is tolerated. */
  wallMs?: () => number;
  /** Of SecondaryProxy.takeover, on a node that was the secondary. */
  table?: Uint8Array;
  /** When `table` was taken over: from here on its ended connections linger. */
  now?: number;
}

export class PrimaryProxy {
  private readonly ports: PrimaryPorts;
  private readonly options: PrimaryOptions;
  private readonly table: ConnectionTable<TcpStream>;
  private readonly tcp: TcpComparer;
  private readonly datagrams: DatagramComparer;
  private readonly count: PrimaryCounters = newPrimaryCounters();
  private readonly egress: Egress;
  private readonly gate: Gate;
  private readonly active = new ActiveFlows();
  private readonly request: CheckpointRequest;
  private readonly overdue: Overdue;
  private readonly output: HeldOutput;
  private readonly view = new FrameView();
  private readonly secondaryView = new FrameView();
  private readonly ingressView = new FrameView();
  private readonly quotes: QuoteTranslator;
  private readonly bypass: Bypass;
  /** What a client was told by the primary before, and this guest says otherwise. */
  private readonly patches = new Patches();

  private epoch = 0;
  private isAlone = true;
  private wasAlone = true;
  private isMirroring = false;
  private isInFlight = false;
  /** What came after the capture that is in flight. */
  private next = new Fifo<Waiting>();
  private nextOrder = 0;
  private now = 0;

  private isGuestPaused = false;
  /** The last epoch before whose capture everything has left. */
  private released = 0;
  /**
   * The epoch before whose capture everything may leave: what of it the uplink has taken, when nothing waits at the
   * gate.
   */
  private releasing: { epoch: number; place: number | undefined } | undefined;
  /** Frames that were lost on their way out before the capture. */
  private lostBefore = 0;

  constructor(ports: PrimaryPorts, options: PrimaryOptions) {
    this.ports = ports;
    this.options = options;
    this.egress = new Egress(ports, this.count);
    this.gate = this.egress.gate;
    this.request = new CheckpointRequest((reason) => ports.wantCheckpoint(reason), this.count);
    this.overdue = new Overdue(options);
    const sink = this.sink();
    const pool = new FramePool();
    this.tcp = new TcpComparer(sink, pool, options.similarity ?? defaultSimilarity);
    this.datagrams = new DatagramComparer(sink, pool);
    this.bypass = new Bypass(options.bypass ?? []);
    this.table = new ConnectionTable<TcpStream>(
      ({ attachment, key }) => {
        if (attachment !== undefined) this.tcp.abandon(attachment);
        this.patches.forget(key);
      },
      ({ attachment }) => attachment !== undefined && attachment.activeIndex >= 0,
    );
    this.quotes = new QuoteTranslator((key) => this.table.find(key));
    const { active, tcp, datagrams, table, egress } = this;
    const unwritten = () => ports.unwritten();
    this.output = new HeldOutput({ active, tcp, datagrams, table, egress, unwritten });
    if (options.table === undefined) return;
    this.table.adopt(tableOf(options.table), options.now ?? 0);
    for (const patch of patchesOf(options.table)) this.patches.add(patch);
  }

  private sink(): CompareSink {
    const { egress, active } = this;
    return {
      leave: (frame, frameClass, held, ids) => egress.leave(frame, frameClass, held, ids),
      diverged: (divergence) => this.want(this.request.note(divergence, { time: this.now, epoch: this.epoch })),
      want: (reason) => this.want(reason),
      tolerate: (key, sequence, bytes) => this.tolerate(key, sequence, bytes),
      wallMs: () => this.options.wallMs?.() ?? 0,
      activate: (flow) => active.add(flow),
      deactivate: (flow) => active.remove(flow),
      heldChanged: (frames, bytes) => this.heldChanged(frames, bytes),
    };
  }

  private tolerate(key: FlowKey, sequence: number, bytes: Uint8Array): boolean {
    const { similarity = defaultSimilarity, wallMs } = this.options;
    if (similarity.dates === 'exact' || wallMs === undefined) return false;
    this.ports.tolerate(packPatch({ key, epoch: this.epoch, sequence, bytes }));
    return true;
  }

  /** The secondary has taken over a time of the primary (`PrimaryPorts.tolerate`). */
  tolerated(answer: Uint8Array, now: number): void {
    const patch = unpackPatch(answer);
    const connection = patch === undefined ? undefined : this.table.find(patch.key);
    if (patch === undefined || connection === undefined || this.isAlone || patch.epoch !== this.epoch) return;
    this.setNow(now);
    this.egress.how = 'match';
    if (this.tcp.tolerated(connection, patch.sequence, now)) this.count.datesTolerated += 1;
  }

  private setNow(now: number): void {
    this.now = now;
    this.egress.now = now;
  }

  /** Ingress is mirrored from now on; the guest's output still passes until the first capture. */
  startMirroring(): void {
    this.isMirroring = true;
  }

  fromNetwork(frame: Uint8Array, now: number): void {
    this.count.ingressFrames += 1;
    this.count.ingressBytes += frame.length;
    if (this.isMirroring) {
      this.count.mirrored += 1;
      this.ports.mirror(frame);
    }
    const view = this.ingressView.parse(frame);
    const isTcp = view.kind === 'tcp' || view.takeFirstFragment();
    this.ports.toGuest(isTcp ? this.ingressOf(view, now) : this.quotes.toGuest(view));
  }

  private ingressOf(view: FrameView, now: number): Uint8Array {
    const connection = this.table.ofClientFrame(view);
    if (connection === undefined) return view.frame;
    this.table.noteClientFrame(connection, view, now);
    const { attachment } = connection;
    if (attachment !== undefined && view.hasAck && isInWindow(connection, view.sequence) !== false)
      this.tcp.fromClient(attachment, view.ack);
    if (!this.patches.isEmpty && view.hasAck && isInWindow(connection, view.sequence) !== false)
      this.patches.acked(connection.key, view.ack);
    return isTranslated(connection) ? toGuestSpace(view, connection) : view.frame;
  }

  fromGuest(frame: Uint8Array, now: number): void {
    this.setNow(now);
    const view = this.view.parse(frame);
    if (view.refusal !== undefined) this.count.malformed += 1;
    if (this.bypass.takes(view)) {
      this.gate.pass(frame, undefined);
      return;
    }
    const connection = view.kind === 'tcp' ? this.translate(view, now) : undefined;
    if (view.quoteAt !== 0) view.parse(this.quotes.toClient(view));
    if (this.isAlone) this.passAlone(view, connection);
    else if (this.isOverrun(view)) this.count.dropped.overrun += 1;
    else if (this.isInFlight) this.wait(this.next, view, now, this.nextOrder++);
    else this.take(view, connection, now, this.nextOrder++);
    this.checkLimits();
  }

  /**
   * From here on `view` is in client space. Without a connection, as when the table is full, it is a frame like any
   * other.
   */
  private translate(view: FrameView, now: number): Connection<TcpStream> | undefined {
    const connection = this.connectionOf(view);
    if (connection === undefined) return undefined;
    if (view.isSyn) this.noteSyn(connection, view, now);
    this.table.noteGuestFrame(connection, view, now);
    // A reset that answers a segment without ACK has sequence number 0 in every space.
    const isNumbered = !(view.isReset && view.sequence === 0);
    if (isNumbered && isTranslated(connection)) view.parse(toClientSpace(view, connection));
    if (!this.patches.isEmpty) this.patches.apply(view);
    return connection;
  }

  private noteSyn(connection: Connection<TcpStream>, view: FrameView, now: number): void {
    if (!isKnownIsn(connection, view.sequence)) {
      this.patches.forget(connection.key);
      this.table.restart(connection, now);
      connection.clientIsn = view.sequence;
      this.table.store(connection);
    }
    if (!this.isMirroring) return;
    const time = view.timestampsAt === 0 ? undefined : (view.timestamp + connection.timeDelta) >>> 0;
    this.ports.announceIsn(packAnnouncement(connection.key, time), connection.clientIsn ?? view.sequence);
  }

  private passAlone(view: FrameView, connection: Connection<TcpStream> | undefined): void {
    if (connection !== undefined) this.tcp.observe(connection, view);
    this.egress.how = 'alone';
    this.egress.leave(view.frame, classOf(view), undefined);
  }

  private take(view: FrameView, connection: Connection<TcpStream> | undefined, now: number, order: number): void {
    if (this.options.mode === 'remus') {
      this.wait(this.output.raw, view, now, order);
      return;
    }
    this.egress.how = 'match';
    // Nobody compares what lies behind the packet.
    if (view.endAt < view.frame.length) view.frame.fill(0, view.endAt);
    if (connection === undefined) {
      const flow = this.datagrams.fromPrimary(view, now, order);
      if (flow.heldBytes > proxyLimits.heldBytesPerFlowMax) this.atLimit(flow.text);
      return;
    }
    this.tcp.fromPrimary(connection, view, now, order);
    const heldBytes = connection.attachment?.heldBytes ?? 0;
    if (heldBytes > proxyLimits.heldBytesPerFlowMax) this.atLimit(flowText(connection.key, 'tcp'));
  }

  private connectionOf(view: FrameView): Connection<TcpStream> | undefined {
    const connection = this.table.ofGuestFrame(view) ?? this.table.add(view.key, this.now);
    if (connection === undefined) view.takeWhole();
    return connection;
  }

  private wait(queue: Fifo<Waiting>, view: FrameView, time: number, order: number): void {
    queue.push({ frame: Buffer.from(view.frame), time, order });
    this.heldChanged(1, view.frame.length);
  }

  /** A frame of the SVM, made in `epoch`, in client space. */
  fromSecondary(epoch: number, id: number, frame: Uint8Array, now: number): void {
    this.setNow(now);
    this.count.secondaryFrames += 1;
    const isComparable = !this.isAlone && this.options.mode === 'colo';
    if (!isComparable || epoch !== this.epoch) {
      this.count.dropped.stale += 1;
      return;
    }
    const view = this.secondaryView.parse(frame);
    if (view.refusal !== undefined) this.count.malformed += 1;
    this.egress.how = 'match';
    const connection = view.kind === 'tcp' ? this.connectionOf(view) : undefined;
    if (connection === undefined) this.datagrams.fromSecondary(view, now, id);
    else this.tcp.fromSecondary(connection, view, now);
  }

  /** The guest stands still: draws the line. Returns what must travel with the checkpoint. */
  capture(now: number): { epoch: number; table: Uint8Array; held: Uint8Array } {
    assert(!this.isInFlight, 'one checkpoint in flight at most');
    this.setNow(now);
    const held = this.encodeHeld();
    this.lostBefore = this.lost;
    this.wasAlone = this.isAlone;
    this.isAlone = false;
    this.isMirroring = true;
    this.isInFlight = true;
    return { epoch: this.epoch + 1, table: packTable(this.table.encode(), this.patches), held };
  }

  private encodeHeld(): Uint8Array {
    return this.output.encode();
  }

  private inOrder(): InOrder[] {
    return this.output.inOrder();
  }

  /** The secondary holds the checkpoint, complete: everything from before its capture leaves. */
  commit(epoch: number, now: number): void {
    assert(this.isInFlight && epoch === this.epoch + 1, 'a commit of the checkpoint in flight');
    this.setNow(now);
    this.isInFlight = false;
    this.epoch = epoch;
    this.request.answered(true);
    this.overdue.resumedAt = undefined;
    this.flush();
    this.releasing = { epoch, place: undefined };
    this.checkReleased();
    this.takeNext(now);
  }

  /** The uplink has got on with what it was given. */
  settled(): void {
    this.egress.settled();
    this.checkReleased();
  }

  /**
   * What was captured has left when nothing of it waits any more, at the gate or in the uplink, and nothing was lost.
   */
  private checkReleased(): void {
    const { releasing } = this;
    if (releasing === undefined || !this.gate.isEmpty) return;
    const { taken, settled } = this.ports.progress;
    releasing.place ??= taken;
    if (settled < releasing.place) return;
    if (this.lost === this.lostBefore) this.released = releasing.epoch;
    this.releasing = undefined;
  }

  private get lost(): number {
    return this.ports.progress.lost + this.gate.dropped;
  }

  /** Lets everything leave that was held before the line, and starts the comparison anew from there. */
  private flush(): void {
    this.egress.how = 'commit';
    const all = this.inOrder();
    this.dropRaw();
    const flows = [...this.active.all];
    this.tcp.beginEpoch(this.tcp.epoch + 1);
    for (const flow of flows) this.takeHeld(flow);
    for (const { leave } of all) leave();
    for (const flow of flows) if (flow instanceof TcpStream) this.tcp.afterCommit(flow, this.now);
    this.datagrams.beginEpoch();
    this.egress.how = 'match';
  }

  private takeHeld(flow: ActiveFlow): void {
    if (flow instanceof TcpStream) this.tcp.takeHeld(flow);
    else this.datagrams.takeHeld(flow as DatagramFlow);
  }

  private dropRaw(): void {
    for (const { frame } of this.output.raw) this.heldChanged(-1, -frame.length);
    this.output.raw.clear();
  }

  private takeNext(now: number): void {
    const next = this.next;
    this.next = new Fifo<Waiting>();
    for (const { frame, time, order } of next) {
      this.heldChanged(-1, -frame.length);
      const view = this.view.parse(frame);
      const connection = view.kind === 'tcp' ? this.connectionOf(view) : undefined;
      if (this.isAlone) this.passAlone(view, connection);
      else this.take(view, connection, time, order);
    }
    this.setNow(now);
    this.checkLimits();
  }

  /** The checkpoint in flight never happened: everything goes on as if there had been no line. */
  abort(epoch: number, now: number): void {
    assert(this.isInFlight && epoch === this.epoch + 1, 'an abort of the checkpoint in flight');
    this.setNow(now);
    this.isInFlight = false;
    this.isAlone = this.wasAlone;
    this.request.answered(false);
    this.takeNext(now);
  }

  /** The checkpoint that was asked for could not even be begun: it is asked for again. */
  notCaptured(): void {
    if (!this.isInFlight) this.request.answered(false);
  }

  /** The secondary has applied the checkpoint and its SVM runs. */
  resumed(epoch: number, now: number): void {
    if (epoch === this.epoch && !this.isAlone) this.overdue.resumedAt = now;
  }

  setGate(open: boolean, now: number): void {
    this.setNow(now);
    this.gate.set(open);
    this.checkReleased();
    this.checkLimits();
  }

  /**
   * The arbiter gave us the term: there is no survivor to honour but this node. More may be held than a shut gate would
   * take.
   */
  goAlone(now: number): void {
    assert(this.gate.open, 'who goes on alone may speak');
    this.setNow(now);
    this.isInFlight = false;
    this.isMirroring = false;
    this.request.answered(true);
    this.overdue.resumedAt = undefined;
    this.flush();
    this.isAlone = true;
    this.takeNext(now);
  }

  poll(now: number): void {
    this.setNow(now);
    this.table.expire(now);
    if (this.isAlone || this.isInFlight) return;
    this.request.repeat(this.isInFlight);
    if (this.options.mode === 'remus') return;
    this.egress.how = 'match';
    const flows = this.active.all;
    for (let at = flows.length - 1; at >= 0; at -= 1) {
      const flow = flows[at];
      if (flow instanceof TcpStream) this.pollStream(flow, now);
      else if (flow !== undefined) this.pollFlow(flow as DatagramFlow, now);
    }
  }

  private pollStream(stream: TcpStream, now: number): void {
    if (this.request.isMade) return;
    const reason = this.overdue.ofStream(stream, this.tcp.owed.since(stream), now);
    if (reason === undefined) return;
    // Both guests were told and have dropped the connection: the SVM will not send what the PVM still did.
    if (hasClientReset(stream.connection)) this.tcp.abandon(stream);
    else this.want(reason);
  }

  private pollFlow(flow: DatagramFlow, now: number): void {
    this.datagrams.poll(flow, now);
    if (this.request.isMade) return;
    const reason = this.overdue.ofFlow(flow, now);
    if (reason !== undefined) this.want(reason);
  }

  private want(reason: CheckpointReason): void {
    if (!this.isAlone) this.request.want(reason, this.isInFlight);
  }

  private heldChanged(frames: number, bytes: number): void {
    this.count.heldFrames += frames;
    this.count.heldBytes += bytes;
  }

  private isOverrun(view: FrameView): boolean {
    const factor = proxyLimits.heldOverrunFactor;
    const bytes = this.count.heldBytes + view.frame.length;
    return bytes > proxyLimits.heldBytesMax * factor || this.count.heldFrames > proxyLimits.heldFramesMax * factor;
  }

  private checkLimits(): void {
    const isFull = this.count.heldBytes > proxyLimits.heldBytesMax || this.count.heldFrames > proxyLimits.heldFramesMax;
    if (isFull) this.atLimit(undefined);
    else if (this.gate.isFull) this.pauseGuest(true);
    else if (this.isGuestPaused && !this.request.isMade) this.pauseGuest(false);
  }

  /** The guest waits until a commit has made room. */
  private atLimit(connection: string | undefined): void {
    const reason = { kind: 'limit' as const, detail: 'too much is held' };
    this.want(connection === undefined ? reason : { ...reason, connection });
    this.pauseGuest(true);
  }

  private pauseGuest(paused: boolean): void {
    if (this.isGuestPaused === paused) return;
    this.isGuestPaused = paused;
    this.ports.pauseGuest(paused);
  }

  get counters(): Readonly<PrimaryCounters> {
    const count = this.count;
    count.split = this.tcp.split;
    count.synthesisedAcks = this.tcp.owed.made;
    count.dropped.oldGeneration = this.tcp.oldGeneration;
    count.dropped.gate = this.gate.dropped;
    count.gatedBytes = this.gate.bytes;
    count.connections = this.table.size;
    count.connectionsEvicted = this.table.evicted;
    count.aheadBytes = this.tcp.aheadBytes + this.datagrams.aheadBytes;
    count.sentBytes = this.tcp.said.bytes;
    return count;
  }

  /** The epoch of the newest committed checkpoint; the next capture makes the one after it. */
  get currentEpoch(): number {
    return this.epoch;
  }

  /** The last epoch whose closing frames have all left: the secondary may forget the copies in its checkpoint. */
  get releasedEpoch(): number {
    return this.released;
  }

  holdTimes(): { count: number; p50: number; p99: number } {
    return {
      count: this.egress.times.count,
      p50: this.egress.times.quantile(0.5),
      p99: this.egress.times.quantile(0.99),
    };
  }

  /** What left uncompared, by rule. */
  bypassed(): readonly BypassCount[] {
    return this.bypass.counts;
  }

  divergences(): DivergenceRecord[] {
    return [...this.request.divergences];
  }
}
