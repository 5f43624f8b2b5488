// The primary's shell: owns the guest, the uplink and the links, and does what PrimaryPair (controller/) decides.
//
//   uplink ──► proxy ──► nic ──► PVM              events ──► queue ──► PrimaryPair ──► actions ──► perform
//                │ mirror                          (links, timers, claims, captures, the VM's end, the operator)
//                ▼
//           packet link ──► secondary
//
// Every outside event enters one queue and is handled in order, never inside the callback that brought it. Packets do
// not: they go through the proxy core at once, whose ports are the sockets.

import { ColoError, errorCodes, errorText } from '../base/errors.ts';
import { Fifo } from '../base/fifo.ts';
import type { LinkKind } from '../channel/link.ts';
import { Records } from '../checkpoint/record.ts';
import { Policy } from '../controller/policy.ts';
import { type PrimaryAction, type PrimaryEvent, PrimaryPair, type Reason } from '../controller/primary-pair.ts';
import { HeartbeatPrimary } from '../heartbeat/primary.ts';
import type { Uplink } from '../netdev/endpoint.ts';
import { PrimaryProxy } from '../proxy/primary.ts';
import type { CheckpointReason } from '../proxy/reason.ts';
import { Checkpointer } from './checkpointer.ts';
import type { NodeContext, Peer, SharedParts } from './context.ts';
import { Ingress } from './ingress.ts';
import { addressesEveryMs, countDirtyMs, pingMs, reconnectMs, tickMs, unprotectedSilenceMs } from './limits.ts';
import { PairLinks } from './links.ts';
import { decodePosition, decodeText, encodeNumber, encodeNumbers, encodeText, messages, numberAt } from './message.ts';
import { PcapLegs } from './pcap-legs.ts';
import type { DiskSource, GuestCard, GuestVm } from './platform.ts';
import { PrimaryDisks } from './primary-disks.ts';

export interface PrimaryParts extends SharedParts {
  vm: GuestVm;
  nic: GuestCard;
  uplink: Uplink;
  /** Template of the VM's device state, for secondaries. */
  template: Uint8Array;
  /** The VM's disks, where it has some. */
  disks?: DiskSource;
  /** Connections begun before a takeover, from SecondaryProxy. */
  table?: Uint8Array;
}

export class PrimaryNode {
  readonly pair = new PrimaryPair();
  readonly records = new Records();
  readonly proxy: PrimaryProxy;
  private readonly pcap: PcapLegs | undefined;
  readonly parts: PrimaryParts;
  readonly context: NodeContext;
  links: PairLinks | undefined;
  heartbeat: HeartbeatPrimary | undefined;
  readonly checkpointer: Checkpointer;
  readonly disks: PrimaryDisks | undefined;
  private policy: Policy;
  private readonly queue = new Fifo<PrimaryEvent>();
  private performing = false;
  private readonly stops: (() => void)[] = [];
  private readonly stopped = new AbortController();
  readonly ingress: Ingress;
  private hasNewAddresses = false;
  private addressesToldAt = Number.NEGATIVE_INFINITY;
  private countedAt = 0;
  private gateOpen = true;
  private releasedTold = 0;
  private pinging = false;
  private readonly waiters: { resolve: () => void; reject: (error: Error) => void }[] = [];
  /** Called once when this node may never speak again as primary; another may run the VM. */
  onFenced: (why: string) => void = () => undefined;
  /** Called once when the VM has ended and nobody is to run it. */
  onVmOver: (why: string) => void = () => undefined;
  /** Called when this node goes on alone after a doubt, with why and when that began. */
  onAlone: (why: string, detectedAt: number) => void = () => undefined;
  private doubt: { why: string; at: number } | undefined;
  /** When the peer last said anything. */
  private heardAt = 0;

  constructor(context: NodeContext, parts: PrimaryParts) {
    this.context = context;
    this.parts = parts;
    const protect = context.config.protect;
    const mode = protect.mode === 'remus' ? 'remus' : 'colo';
    this.pcap = openPcap(context);
    this.proxy = new PrimaryProxy(this.ports(), {
      mode,
      compareTimeoutMs: protect.compareTimeout,
      patienceMs: protect.patience,
      similarity: protect.similarity,
      bypass: context.config.network?.bypass ?? [],
      ...(parts.table === undefined ? {} : { table: parts.table, now: context.clock.now() }),
    });
    this.ingress = new Ingress((frame, now) => this.deliver(frame, now));
    this.checkpointer = new Checkpointer(this);
    if (parts.disks !== undefined)
      this.disks = new PrimaryDisks(context, parts.disks, (why) => this.post({ kind: 'linkLost', why }));
    this.policy = this.newPolicy();
  }

  /** Begins as a primary that is alone, and looks for its peer. */
  start(): void {
    const { clock } = this.context;
    this.parts.nic.handler = (frame) => this.fromGuest(frame, clock.now());
    this.stops.push(clock.every(tickMs, () => this.tick(clock.now())));
    void this.parts.vm.exited.then((end) =>
      this.post({
        kind: 'vmEnded',
        why: end.signal === null ? `QEMU ended with code ${end.code}` : `QEMU was killed (${end.signal})`,
        byGuest: end.signal === null && end.code === 0,
      }),
    );
    this.stops.push(clock.every(pingMs, () => this.ping()));
    if (this.context.config.protect.mode !== 'none') void this.seekPeer();
  }

  private fromGuest(frame: Uint8Array, now: number): void {
    // A node that was stopped wakes with frames of its guest waiting that the SVM has answered long ago.
    this.checkLease(now);
    this.pcap?.write('primary', frame, now);
    if (this.parts.addresses.said(frame)) this.hasNewAddresses = true;
    this.proxy.fromGuest(frame, now);
  }

  private fromSecondary(epoch: number, id: number, frame: Uint8Array, now: number): void {
    this.pcap?.write('secondary', frame, now);
    this.proxy.fromSecondary(epoch, id, frame, now);
  }

  private toNetwork(frame: Uint8Array): void {
    this.pcap?.write('released', frame, this.context.clock.now());
    this.parts.uplink.send(frame);
  }

  /** A frame of the network. */
  fromNetwork(frame: Uint8Array): void {
    this.ingress.take(frame, this.context.clock.now(), this.links !== undefined);
  }

  post(event: PrimaryEvent): void {
    this.queue.push(event);
    if (this.performing) return;
    this.performing = true;
    queueMicrotask(() => this.run());
  }

  /** An operator's checkpoint: resolves when it is applied. */
  checkpoint(): Promise<void> {
    const state = this.pair.state;
    if (state.kind !== 'protected')
      return Promise.reject(new ColoError(errorCodes.input, `the VM is not protected (${state.kind}): no checkpoint`));
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.waiters.push({ resolve, reject });
    this.post({ kind: 'want', reason: { kind: 'operator' } });
    return promise;
  }

  /** A planned failover: the secondary takes over now. */
  failover(): void {
    const state = this.pair.state;
    if (state.kind !== 'protected' || state.phase === 'capturing' || !state.complete)
      throw new ColoError(errorCodes.input, `the VM is not protected (${state.kind}): nobody could take over`, {
        hint: 'wait until `colo status` says protected',
      });
    this.post({ kind: 'handover', why: 'the operator asked for a failover' });
  }

  /** Tells the peer that nothing is to be taken over: the operator ends the VM. */
  sayEnd(): void {
    this.links?.packet.send(messages.end, encodeText('the primary was stopped by its operator'));
  }

  /** Ends everything of this role; the VM is the owner's. Safe to call again. */
  shutDown(): void {
    this.stopped.abort();
    for (const stop of this.stops.splice(0)) stop();
    this.links?.close();
    this.links = undefined;
    this.disks?.close('this node is no longer the primary');
    void this.pcap?.close();
    this.parts.nic.handler = undefined;
    this.settleWaiters(new ColoError(errorCodes.termLost, 'this node is no longer the primary'));
  }

  private tick(now: number): void {
    this.heartbeat?.tick(now);
    this.checkLease(now);
    if (this.heartbeat?.detector.suspects(now) === true) this.post({ kind: 'silence' });
    this.giveUpSilentCandidate(now);
    this.proxy.poll(now);
    this.tellReleased();
    if (this.hasNewAddresses && now - this.addressesToldAt >= addressesEveryMs) this.tellAddresses(now);
    const state = this.pair.state;
    if (state.kind !== 'protected' || state.phase !== 'running') return;
    const due = this.policy.due(now, this.dirtyPages(now));
    if (due !== undefined) this.post({ kind: 'want', reason: { kind: due } });
  }

  /** A QEMU that hangs is as bad as one that is dead, and looks alive to everybody else. */
  private ping(): void {
    const { vm } = this.parts;
    if (vm.ping === undefined || this.pinging || this.pair.state.kind !== 'protected') return;
    this.pinging = true;
    vm.ping().then(
      () => {
        this.pinging = false;
      },
      (error: unknown) => {
        if (!(error instanceof ColoError) || error.code !== errorCodes.qemuTimeout) return;
        this.post({ kind: 'vmEnded', why: `QEMU hangs: ${errorText(error)}`, byGuest: false });
      },
    );
  }

  /** Before it is protected nothing waits for the peer, so it has time; but a host that died may never close a link. */
  private giveUpSilentCandidate(now: number): void {
    const { kind } = this.pair.state;
    if (this.links === undefined || (kind !== 'alone' && kind !== 'syncing')) return;
    if (now - this.heardAt < unprotectedSilenceMs) return;
    this.links.close();
    this.onLinksLost('it said nothing while it was to become the secondary');
  }

  private dirtyPages(now: number): number {
    if (now - this.countedAt < countDirtyMs) return 0;
    this.countedAt = now;
    try {
      return this.parts.vm.tracker.count();
    } catch (error) {
      // QEMU has just died: its end is an event of its own.
      this.context.log.warn({ error: errorText(error) }, 'dirty pages cannot be counted');
      return 0;
    }
  }

  /** While paired, the gate is open only as long as the secondary's echoes lend the right to speak (heartbeat/lease.ts). */
  private checkLease(now: number): void {
    const state = this.pair.state;
    if (state.kind !== 'protected' || this.heartbeat === undefined) return;
    this.setGate(this.heartbeat.lease.valid(now), now);
  }

  /** Whether this node may say something to the network now, by its term or by what the secondary lends it. */
  get maySpeak(): boolean {
    this.checkLease(this.context.clock.now());
    return this.gateOpen;
  }

  private setGate(open: boolean, now: number): void {
    if (open === this.gateOpen) return;
    this.gateOpen = open;
    this.context.log.debug({ open }, 'release gate');
    this.proxy.setGate(open, now);
  }

  private ports() {
    return {
      toNetwork: (frame: Uint8Array) => this.toNetwork(frame),
      toGuest: (frame: Uint8Array) => this.parts.nic.send(frame),
      mirror: (frame: Uint8Array) => this.links?.packet.send(messages.ingress, frame),
      announceIsn: (key: Uint8Array, isn: number) => this.links?.packet.send(messages.isn, encodeNumber(isn), key),
      confirm: (ids: number[]) => this.links?.packet.send(messages.confirm, encodeNumbers(ids)),
      wantCheckpoint: (reason: CheckpointReason) => this.post({ kind: 'want', reason }),
      pauseGuest: (paused: boolean) => this.parts.nic.pause(paused),
    };
  }

  private run(): void {
    for (let event = this.queue.shift(); event !== undefined; event = this.queue.shift()) {
      const before = this.pair.state.kind;
      const actions = this.pair.on(event);
      if (this.pair.state.kind !== before) this.logState(before, event);
      this.noteDoubt(event);
      for (const action of actions) this.perform(action);
    }
    this.performing = false;
  }

  private noteDoubt(event: PrimaryEvent): void {
    const state = this.pair.state;
    if (state.kind !== 'suspecting' || this.doubt !== undefined) return;
    const now = this.context.clock.now();
    this.doubt = { why: state.why, at: now };
    if (event.kind === 'silence') this.parts.tolerance.suspects(this.links?.beat.peer.node ?? '', now);
  }

  private logState(before: string, event: PrimaryEvent): void {
    const why = 'why' in event ? event.why : undefined;
    this.context.log.info({ from: before, to: this.pair.state.kind, on: event.kind, why }, 'primary');
  }

  private perform(action: PrimaryAction): void {
    const now = this.context.clock.now();
    switch (action.kind) {
      case 'startMirroring':
        this.proxy.startMirroring();
        return;
      case 'sendRound':
        this.background(this.checkpointer.sendRound(action.round), 'the copy of the RAM');
        return;
      case 'claimPair':
        void this.claimPair();
        return;
      case 'claimAlone':
        if (action.afterMs === undefined) this.claimAlone();
        else this.context.clock.after(action.afterMs, () => this.claimAlone());
        return;
      case 'capture':
        this.background(this.capture(action.reason), 'a checkpoint');
        return;
      case 'release':
        this.release(action.epoch, now);
        return;
      case 'compare':
        this.proxy.resumed(action.epoch, now);
        this.context.platform.reached('compare.begun', action.epoch);
        this.settleWaiters(undefined);
        return;
      case 'abortCapture':
        this.checkpointer.abort(action.epoch, now);
        return;
      case 'shutGate':
        this.setGate(false, now);
        return;
      case 'goAlone':
        this.goAlone(now);
        return;
      case 'dropPeer':
        this.dropPeer(action.why);
        return;
      case 'tellHandover':
        this.links?.packet.send(messages.handover, encodeText(action.why));
        return;
      case 'tellEnd':
        this.links?.packet.send(messages.end, encodeText(action.why));
        this.shutDown();
        this.onVmOver(action.why);
        return;
      case 'fence':
        this.shutDown();
        this.onFenced(action.why);
        return;
    }
  }

  private claimAlone(): void {
    if (this.stopped.signal.aborted) return;
    void this.parts.terms.claimAlone().then((outcome) => this.post({ kind: 'aloneClaimed', outcome }));
  }

  private async claimPair(): Promise<void> {
    const outcome = await this.parts.terms.claimPair(this.links?.beat.peer.node ?? '');
    this.context.platform.reached('pair.claimed', 0);
    this.post({ kind: 'pairClaimed', outcome });
  }

  /** Captures and sends; what the secondary answers comes back as events. */
  private async capture(reason: Reason): Promise<void> {
    await this.checkpointer.capture(reason);
    this.policy.captured(this.context.clock.now());
    await this.checkpointer.send();
  }

  private release(epoch: number, now: number): void {
    this.context.platform.reached('commit.received', epoch);
    this.checkLease(now);
    this.proxy.commit(epoch, now);
    this.tellReleased();
    this.context.platform.reached('release.done', epoch);
  }

  /** With the gate shut the frames of a commit wait: the secondary must keep its copy of them until they have left. */
  private tellReleased(): void {
    const epoch = this.proxy.releasedEpoch;
    if (epoch <= this.releasedTold || this.links === undefined) return;
    this.releasedTold = epoch;
    this.links.packet.send(messages.released, encodeNumber(epoch));
  }

  private goAlone(now: number): void {
    this.policy = this.newPolicy();
    this.heartbeat = undefined;
    this.proxy.goAlone(now);
    this.setGate(true, now);
    if (this.doubt !== undefined) this.onAlone(this.doubt.why, this.doubt.at);
    this.doubt = undefined;
    this.settleWaiters(new ColoError(errorCodes.checkpoint, 'the secondary was lost'));
  }

  private dropPeer(why: string): void {
    this.context.log.warn({ why }, 'the secondary is dropped');
    this.heartbeat?.closed();
    this.heartbeat = undefined;
    this.links?.close();
    this.links = undefined;
    this.disks?.drop(why);
    this.checkpointer.dropped();
  }

  /** Runs a task of an action; how it fails is an event, never an exception that nobody sees. */
  private background(task: Promise<void>, what: string): void {
    const { links } = this;
    task.catch((error: unknown) => {
      const why = errorText(error);
      this.context.log.warn({ error: why }, `${what} failed`);
      // That pairing is over and was dealt with; the one of now, if any, has nothing to do with it.
      if (this.links !== links) return;
      const state = this.pair.state;
      if (state.kind === 'protected' && state.phase === 'capturing') this.post({ kind: 'captureFailed', why });
      else this.post({ kind: 'linkLost', why });
    });
  }

  private settleWaiters(error: Error | undefined): void {
    for (const waiter of this.waiters.splice(0)) {
      if (error === undefined) waiter.resolve();
      else waiter.reject(error);
    }
  }

  /** The secondary may never see its guest claim them. */
  private tellAddresses(now: number): void {
    this.hasNewAddresses = false;
    this.addressesToldAt = now;
    this.links?.packet.send(messages.addresses, this.parts.addresses.encode());
  }

  /** What waited for a capture goes on its way, behind the marker. */
  releaseIngress(): void {
    this.ingress.release(this.context.clock.now(), this.links !== undefined);
  }

  /** Repeats the last moments of ingress to the secondary's log, when it is not known whether the guest had them. */
  replayRecent(now: number): void {
    for (const frame of this.ingress.lastMoments(now)) this.links?.packet.send(messages.replay, frame);
  }

  private deliver(frame: Uint8Array, now: number): void {
    if (this.parts.addresses.heard(frame)) this.hasNewAddresses = true;
    this.proxy.fromNetwork(frame, now);
  }

  // ---- the peer ----

  private async seekPeer(): Promise<void> {
    const { config, clock } = this.context;
    while (!this.stopped.signal.aborted) {
      for (const peer of config.peers) if (this.isSeeking) await this.tryPeer(peer);
      await new Promise<void>((resolve) => void clock.after(reconnectMs, resolve));
    }
  }

  private get isSeeking(): boolean {
    const mayTry = this.disks?.mayTry(this.context.clock.now()) ?? true;
    return mayTry && !this.stopped.signal.aborted && this.pair.state.kind === 'alone' && this.links === undefined;
  }

  private async tryPeer(peer: Peer): Promise<void> {
    try {
      const term = this.parts.terms.record?.term ?? 0;
      const opened = await this.context.platform.openLinks(peer, term, this.stopped.signal);
      if (!this.isSeeking) {
        for (const link of Object.values(opened)) link.destroy();
        return;
      }
      this.heardAt = this.context.clock.now();
      this.parts.tolerance.paired(peer.node, this.heardAt);
      this.links = new PairLinks(opened, {
        message: (kind, type, payload) => this.onMessage(kind, type, payload),
        lost: (why) => this.onLinksLost(why),
      });
      await this.checkpointer.sendSession(this.parts.template);
    } catch (error) {
      this.context.log.debug({ peer: peer.node, error: errorText(error) }, 'no secondary there yet');
    }
  }

  private onLinksLost(why: string): void {
    this.links = undefined;
    this.heartbeat?.closed();
    // At once: a stop that is under way waits for writes that wait for the peer.
    this.disks?.drop(why);
    this.setGateIfPaired();
    this.post({ kind: 'linkLost', why });
  }

  /** The lease ends with the link, at once: before the event is handled. */
  private setGateIfPaired(): void {
    if (this.pair.state.kind === 'protected') this.setGate(false, this.context.clock.now());
  }

  private onMessage(kind: LinkKind, type: number, payload: Uint8Array): void {
    const now = this.context.clock.now();
    this.heardAt = now;
    if (kind === 'beat') {
      if (this.heartbeat?.receive(type, payload, now) === false)
        throw new ColoError(errorCodes.channel, 'the peer sent something else than an echo');
      return;
    }
    this.checkLease(now);
    if (kind !== 'packet') throw new ColoError(errorCodes.channel, `the peer sent type ${type} on the ${kind} link`);
    switch (type) {
      case messages.egress:
        this.fromSecondary(numberAt(payload, 0), numberAt(payload, 4), payload.subarray(8), now);
        return;
      case messages.ready:
        this.onReady(now);
        return;
      case messages.committed:
        // Handled in the order of the link: the answers of the new epoch come behind it.
        this.checkpointer.committed(numberAt(payload, 0), now);
        this.postNow({ kind: 'committed', epoch: numberAt(payload, 0) });
        return;
      case messages.applied:
        this.postNow({ kind: 'applied', epoch: this.checkpointer.applied(payload) });
        return;
      case messages.diskHeld:
        this.disks?.held(decodePosition(payload));
        return;
      case messages.diskKept:
        this.disks?.kept(decodePosition(payload));
        return;
      case messages.diskFailed:
        this.disks?.failed(decodeText(payload));
        return;
      case messages.refused:
        this.post({ kind: 'refused', epoch: numberAt(payload, 0), why: decodeText(payload.subarray(4)) });
        return;
      default:
        throw new ColoError(errorCodes.channel, `the peer sent an unknown message of type ${type}`);
    }
  }

  private onReady(now: number): void {
    const links = this.links;
    if (links === undefined) return;
    const term = this.parts.terms.record?.term ?? 0;
    const { tolerance } = this.parts;
    const send = (type: number, payload: Uint8Array) => links.beat.send(type, payload);
    this.heartbeat = new HeartbeatPrimary({ send }, { term, now, tolerance });
    this.tellAddresses(now);
    this.post({ kind: 'peerReady' });
  }

  /** Queues the event and handles the queue before returning, unless it is being handled already. */
  private postNow(event: PrimaryEvent): void {
    this.queue.push(event);
    if (this.performing) return;
    this.performing = true;
    this.run();
  }

  private newPolicy(): Policy {
    const protect = this.context.config.protect;
    return new Policy(
      {
        mode: protect.mode === 'remus' ? 'remus' : 'colo',
        intervalMs: protect.interval,
        epochMaxMs: protect.epochMax,
        dirtyPagesMax: Math.floor(protect.dirtyMax / 4096),
      },
      this.context.clock.now(),
    );
  }
}

function openPcap({ config, log }: NodeContext): PcapLegs | undefined {
  const directory = config.network?.pcapDir;
  return directory === undefined ? undefined : new PcapLegs(directory, `${config.vm}-${config.node}`, log);
}
