// The primary's shell: owns the guest and the uplink, and does what PrimaryPair (controller/) decides.
//
//   uplink ──► proxy ──► nic ──► PVM              events ──► queue ──► PrimaryPair ──► actions ──► perform
//                │ mirror                          (links, timers, claims, captures, the VM's end, the operator)
//                ▼
//           packet link ──► secondary
//
// Every outside event enters one queue and is handled in order, never inside the callback that brought it. Packets do
// not: they go through the proxy core at once, whose ports are the sockets.
//
// The other parts of the role: the peer and the links to it (peer.ts), the right to speak (speech-gate.ts),
// checkpoints (checkpointer.ts, checkpoint-due.ts), disks (disks.ts), the VM's end (vm-watch.ts).

import { ColoError, errorCodes, errorText } from '../../base/errors.ts';
import { during } from '../../base/loop-watch.ts';
import { Records } from '../../checkpoint/record.ts';
import { type PrimaryAction, type PrimaryEvent, PrimaryPair, type Reason } from '../../controller/primary-pair.ts';
import type { Uplink } from '../../netdev/endpoint.ts';
import { PrimaryProxy } from '../../proxy/primary.ts';
import type { CheckpointReason } from '../../proxy/reason.ts';
import type { NodeContext } from '../context.ts';
import { Driver } from '../driver.ts';
import { tickMs } from '../limits.ts';
import { encodeNumber, encodeNumbers, encodeText, messages } from '../pairing/message.ts';
import type { DiskSource, GuestCard, GuestVm } from '../platform.ts';
import { PcapLegs } from '../real/pcap-legs.ts';
import type { SharedParts } from '../shared-parts.ts';
import type { Troubles } from '../troubles.ts';
import { VmWatch } from '../vm-watch.ts';
import { CheckpointDue } from './checkpoint-due.ts';
import { Checkpointer } from './checkpointer.ts';
import { PrimaryDisks } from './disks.ts';
import { Ingress } from './ingress.ts';
import { Offer } from './offer.ts';
import { PrimaryPeer } from './peer.ts';
import { PrimaryGate } from './speech-gate.ts';

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
  readonly peer = new PrimaryPeer(this);
  readonly gate = new PrimaryGate(this);
  readonly offer = new Offer(this);
  readonly checkpointer: Checkpointer;
  readonly disks: PrimaryDisks | undefined;
  private readonly due: CheckpointDue;
  private readonly watch = new VmWatch(this);
  private readonly driver: Driver<PrimaryEvent, PrimaryAction>;
  private readonly stops: (() => void)[] = [];
  /** Aborted when this role ends. */
  readonly stopped = new AbortController();
  readonly ingress: Ingress;
  private waiters: { request: number; resolve: () => void; reject: (error: Error) => void }[] = [];
  private requests = 0;
  /** Called once when this node may never speak again as primary; another may run the VM. */
  onFenced: (why: string) => void = () => undefined;
  /** Called once when the VM has ended and nobody is to run it. */
  onVmOver: (why: string, byGuest: boolean) => void = () => undefined;
  /** Called when this node goes on alone after a doubt, with why and when that began. */
  onAlone: (why: string, detectedAt: number) => void = () => undefined;
  private doubt: { why: string; at: number } | undefined;

  constructor(context: NodeContext, parts: PrimaryParts) {
    this.context = context;
    this.parts = parts;
    const protect = context.config.protect;
    const mode = protect.mode === 'remus' ? 'remus' : 'colo';
    this.driver = new Driver({
      ...{ machine: this.pair, log: context.log, name: 'primary' },
      noted: (event) => this.noteDoubt(event),
      perform: (action) => this.perform(action),
    });
    this.pcap = openPcap(context, parts.troubles);
    this.proxy = new PrimaryProxy(this.ports(), {
      mode,
      compareTimeoutMs: protect.compareTimeout,
      patienceMs: protect.patience,
      similarity: protect.similarity,
      wallMs: context.wallMs,
      bypass: context.config.network?.bypass ?? [],
      ...(parts.table === undefined ? {} : { table: parts.table, now: context.clock.now() }),
    });
    this.ingress = new Ingress((frame, now) => this.deliver(frame, now));
    this.checkpointer = new Checkpointer(this);
    if (parts.disks !== undefined)
      this.disks = new PrimaryDisks(context, parts.disks, (why) => this.post({ kind: 'linkLost', why }));
    this.due = new CheckpointDue(context, parts.vm);
  }

  /** Begins as a primary that is alone, and looks for its peer. */
  start(): void {
    const { clock } = this.context;
    this.parts.nic.handler = (frame) => during('guest frame', () => this.fromGuest(frame, clock.now()));
    this.stops.push(clock.every(tickMs, () => during('tick', () => this.tick(clock.now()))));
    this.stops.push(this.watch.start());
    if (this.context.config.protect.mode !== 'none') void this.peer.seek();
  }

  /** A frame of the guest. */
  fromGuest(frame: Uint8Array, now: number): void {
    // A node that was stopped wakes with frames of its guest waiting that the SVM has answered long ago.
    this.gate.checkLease(now);
    this.pcap?.write('primary', frame, now);
    this.proxy.fromGuest(frame, now);
  }

  /** A frame of the SVM, made in `epoch`. */
  fromSecondary(epoch: number, id: number, frame: Uint8Array, now: number): void {
    this.pcap?.write('secondary', frame, now);
    this.proxy.fromSecondary(epoch, id, frame, now);
  }

  private toNetwork(frame: Uint8Array): void {
    const now = this.context.clock.now();
    this.pcap?.write('released', frame, now);
    const { uplink, addresses } = this.parts;
    const { lost } = uplink.progress;
    uplink.send(frame);
    // What has not left is no claim: the survivor's guest may never have made it.
    if (uplink.progress.lost === lost && addresses.said(frame, now)) this.peer.hasNewAddresses = true;
  }

  /** A frame of the network. */
  fromNetwork(frame: Uint8Array): void {
    this.ingress.take(frame, this.context.clock.now(), this.peer.links !== undefined);
  }

  /** An event that is handled when the callback which brought it has returned. */
  post(event: PrimaryEvent): void {
    this.driver.postLater(event);
  }

  /** An event that is handled before what comes behind it on its link. */
  postNow(event: PrimaryEvent): void {
    this.driver.postNow(event);
  }

  /** An operator's checkpoint: resolves when one that was begun after it was asked for is applied. */
  checkpoint(): Promise<void> {
    const state = this.pair.state;
    if (state.kind !== 'protected') {
      const why = this.peer.why;
      const isHurried = this.peer.hurry();
      const now = isHurried ? 'a secondary is looked for now, without waiting any longer' : '';
      const hint = [why, now].filter((part) => part !== '').join('; ') || 'see `colo status`';
      return Promise.reject(
        new ColoError(errorCodes.input, `the VM is not protected (${state.kind}): no checkpoint`, { hint }),
      );
    }
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.requests += 1;
    this.waiters.push({ request: this.requests, resolve, reject });
    this.post({ kind: 'want', reason: { kind: 'operator' }, request: this.requests });
    return promise;
  }

  /** Tells the peer that nothing is to be taken over: the operator ends the VM. */
  sayEnd(): void {
    this.peer.links?.packet.send(messages.end, encodeText('the primary was stopped by its operator'));
  }

  /** Ends everything of this role; the VM is the owner's. Safe to call again. */
  shutDown(): void {
    this.stopped.abort();
    for (const stop of this.stops.splice(0)) stop();
    this.peer.close('this node is no longer the primary');
    this.disks?.close('this node is no longer the primary');
    void this.pcap?.close();
    this.parts.nic.handler = undefined;
    this.offer.refused('this node is no longer the primary');
    this.rejectWaiters(new ColoError(errorCodes.termLost, 'this node is no longer the primary'));
  }

  private tick(now: number): void {
    this.peer.heartbeat?.tick(now);
    this.gate.checkLease(now);
    this.peer.lookForSilence(now);
    this.proxy.poll(now);
    this.gate.tellReleased();
    if (this.parts.addresses.expire(now)) this.peer.hasNewAddresses = true;
    this.peer.tellNewAddresses(now);
    this.offer.lookAtUplinks(now);
    const state = this.pair.state;
    if (state.kind !== 'protected' || state.phase !== 'running') return;
    const due = this.due.at(now);
    if (due !== undefined) this.post({ kind: 'want', reason: { kind: due } });
  }

  /** Whether this node may say something to the network now, by its term or by what the secondary lends it. */
  get maySpeak(): boolean {
    this.gate.checkLease(this.context.clock.now());
    return this.gate.isOpen;
  }

  /** The uplink has got on with what it was given: what has left is told to the secondary. */
  onSettled(): void {
    this.proxy.settled();
    this.gate.tellReleased();
  }

  private ports() {
    return {
      toNetwork: (frame: Uint8Array) => this.toNetwork(frame),
      toGuest: (frame: Uint8Array) => this.parts.nic.send(frame),
      mirror: (frame: Uint8Array) => this.peer.links?.packet.send(messages.ingress, frame),
      announceIsn: (key: Uint8Array, isn: number) => this.peer.links?.packet.send(messages.isn, encodeNumber(isn), key),
      progress: this.parts.uplink.progress,
      unwritten: () => this.parts.uplink.unwritten(),
      confirm: (ids: number[]) => this.peer.links?.packet.send(messages.confirm, encodeNumbers(ids)),
      tolerate: (patch: Uint8Array) => this.peer.links?.packet.send(messages.tolerate, patch),
      wantCheckpoint: (reason: CheckpointReason) => this.post({ kind: 'want', reason }),
      pauseGuest: (paused: boolean) => this.parts.nic.pause(paused),
    };
  }

  private noteDoubt(event: PrimaryEvent): void {
    const state = this.pair.state;
    if (state.kind !== 'suspecting' || this.doubt !== undefined) return;
    const now = this.context.clock.now();
    this.doubt = { why: state.why, at: now };
    if (event.kind === 'silence') this.parts.tolerance.suspects(this.peer.links?.beat.peer.node ?? '', now);
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
        if (action.afterMs === undefined) void this.claimAlone();
        else void this.offer.awaitTaken(action.afterMs).then((taken) => (taken ? undefined : this.claimAlone()));
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
        this.answer(action.answers);
        return;
      case 'abortCapture':
        this.checkpointer.abort(action.epoch, now);
        return;
      case 'shutGate':
        this.gate.set(false, now);
        return;
      case 'goAlone':
        this.goAlone(now);
        return;
      case 'dropPeer':
        this.dropPeer(action.why);
        return;
      case 'tellHandover':
        this.peer.links?.packet.send(messages.handover, encodeText(action.why));
        return;
      case 'tellEnd':
        this.peer.links?.packet.send(messages.end, encodeText(action.why));
        this.shutDown();
        this.onVmOver(action.why, action.byGuest);
        return;
      case 'fence':
        this.offer.taken();
        this.shutDown();
        this.onFenced(action.why);
        return;
    }
  }

  /**
   * Claims when the own QEMU gives a sign of life, where the secondary may run the VM: a node that cannot run it must not take
   * the term from one that can. One that is gone leaves the term to the secondary. One that is silent is asked again, since
   * there may be no other copy, until it answers or the secondary has the term.
   */
  private async claimAlone(): Promise<void> {
    if (this.stopped.signal.aborted) return;
    const { terms } = this.parts;
    if (this.pair.peerMayRun && (await this.offer.yielded())) return;
    const sign = this.pair.peerMayRun ? await this.watch.signOfLife() : 'lives';
    if (sign === 'gone') return this.leaveToSecondary();
    // Its QEMU may die while the arbiter is asked: then the copy of the secondary is the last one.
    const isWanted = () => this.pair.state.kind !== 'fenced';
    if (sign === 'lives') this.post({ kind: 'aloneClaimed', outcome: await terms.claimAlone(isWanted) });
    else this.post({ kind: 'aloneClaimed', outcome: (await terms.isLost()) ? 'lost' : 'error' });
  }

  /** Its end is an event of its own, and says whether the guest wanted it; it is heard, or taken for heard after a while. */
  private async leaveToSecondary(): Promise<void> {
    await this.watch.endHeard();
    this.post({ kind: 'vmEnded', why: 'QEMU is gone', byGuest: false });
  }

  private async claimPair(): Promise<void> {
    const outcome = await this.parts.terms.claimPair(this.peer.links?.beat.peer.node ?? '');
    this.context.platform.reached('pair.claimed', 0);
    this.post({ kind: 'pairClaimed', outcome });
  }

  /** Captures and sends; what the secondary answers comes back as events. */
  private async capture(reason: Reason): Promise<void> {
    await this.checkpointer.capture(reason);
    this.due.captured();
    await this.checkpointer.send();
  }

  private release(epoch: number, now: number): void {
    this.context.platform.reached('commit.received', epoch);
    this.gate.checkLease(now);
    this.proxy.commit(epoch, now);
    this.gate.tellReleased();
    this.context.platform.reached('release.done', epoch);
  }

  private goAlone(now: number): void {
    this.due.restart();
    this.peer.heartbeat = undefined;
    this.gate.set(true, now);
    this.proxy.goAlone(now);
    if (this.doubt !== undefined) this.onAlone(this.doubt.why, this.doubt.at);
    this.doubt = undefined;
    this.offer.refused('the secondary did not take over: this node goes on');
    this.rejectWaiters(new ColoError(errorCodes.checkpoint, 'the secondary was lost'));
  }

  private dropPeer(why: string): void {
    this.context.log.warn({ why }, 'the secondary is dropped');
    this.peer.drop(why);
    this.disks?.drop(why);
    this.checkpointer.dropped();
  }

  /** Runs a task of an action; how it fails is an event, never an exception that nobody sees. */
  private background(task: Promise<void>, what: string): void {
    const { links } = this.peer;
    task.catch(async (error: unknown) => {
      const why = errorText(error);
      this.context.log.warn({ error: why }, `${what} failed`);
      await this.watch.endHeard();
      // That pairing is over and was dealt with, or will be with the peer's last words; the one of now has nothing to do with it.
      if (this.peer.links !== links || links?.ending === true) return;
      const state = this.pair.state;
      if (state.kind === 'protected' && state.phase === 'capturing') {
        this.post({ kind: 'captureFailed', why });
        this.proxy.notCaptured();
      } else this.post({ kind: 'linkLost', why });
    });
  }

  /** Requests up to this one are done. */
  private answer(upTo: number): void {
    for (const { request, resolve } of this.waiters) if (request <= upTo) resolve();
    this.waiters = this.waiters.filter(({ request }) => request > upTo);
  }

  private rejectWaiters(error: Error): void {
    for (const { reject } of this.waiters.splice(0)) reject(error);
  }

  /** What waited for a capture goes on its way, behind the marker. */
  releaseIngress(): void {
    this.ingress.release(this.context.clock.now(), this.peer.links !== undefined);
  }

  /** Repeats the last moments of ingress to the secondary's log, when it is not known whether the guest had them. */
  replayRecent(now: number): void {
    for (const frame of this.ingress.lastMoments(now)) this.peer.links?.packet.send(messages.replay, frame);
  }

  private deliver(frame: Uint8Array, now: number): void {
    if (this.parts.addresses.heard(frame)) this.peer.hasNewAddresses = true;
    this.proxy.fromNetwork(frame, now);
  }
}

function openPcap({ config }: NodeContext, troubles: Troubles): PcapLegs | undefined {
  const directory = config.network?.pcapDir;
  if (directory === undefined) return undefined;
  return new PcapLegs(directory, `${config.vm}-${config.node}`, (why) => troubles.tell('pcap', why));
}
