// The primary's shell: owns the guest and the uplink, and does what PrimaryPair (controller/) decides.
//
//   links, timers, claims, captures, the VM's end, the operator ──► driver ──► PrimaryPair ──► actions ──► perform
//
// Every outside event goes through one driver (driver.ts). Frames do not: they go through the proxy at once
// (frames.ts).
//
// What belongs to one secondary is its pairing (pairing.ts), made when the seeker has found a node. The other parts of
// the role outlive it: the right to speak (speech-gate.ts), captures of the machine (capture.ts), the disks (disks.ts),
// the VM's end (vm-watch.ts), and why there is no secondary (unprotected-reason.ts).

import { ColoError, errorCodes, errorText } from '../../base/errors.ts';
import { during } from '../../base/loop-watch.ts';
import type { Compressor } from '../../checkpoint/compress.ts';
import { Records } from '../../checkpoint/record.ts';
import { type PrimaryAction, type PrimaryEvent, PrimaryPair, type Reason } from '../../controller/primary-pair.ts';
import type { Uplink } from '../../netdev/endpoint.ts';
import type { PrimaryProxy } from '../../proxy/primary.ts';
import type { CheckpointReason } from '../../proxy/reason.ts';
import type { Peer } from '../config.ts';
import type { NodeContext } from '../context.ts';
import { Driver } from '../driver.ts';
import type { FaultPoint } from '../fault-points.ts';
import { tickMs } from '../limits.ts';
import { PairLinks } from '../pairing/links.ts';
import { encodeText, messages } from '../pairing/message.ts';
import type { DiskSource, GuestCard, GuestVm, PeerLinks } from '../platform.ts';
import type { SharedParts } from '../shared-parts.ts';
import { VmWatch } from '../vm-watch.ts';
import { Captures } from './checkpoint/capture.ts';
import { Checkpointer } from './checkpoint/checkpointer.ts';
import { CheckpointDue } from './checkpoint/due.ts';
import { CheckpointRequests } from './checkpoint/requests.ts';
import { Claims } from './claims.ts';
import { PrimaryDisks } from './disks/disks.ts';
import { PrimaryFrames } from './frames.ts';
import type { Ingress } from './ingress.ts';
import { Offer } from './offer.ts';
import { PrimaryPairing } from './pairing.ts';
import { Seeker } from './seeker.ts';
import type { SpeechGate } from './speech-gate.ts';
import { Plight } from './unprotected-reason.ts';

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
  readonly plight = new Plight();
  readonly parts: PrimaryParts;
  readonly context: NodeContext;
  readonly seeker: Seeker;
  readonly offer: Offer;
  readonly disks: PrimaryDisks | undefined;
  /** The secondary of now, or the node that is to become it. */
  pairing: PrimaryPairing | undefined;
  private readonly driver: Driver<PrimaryEvent, PrimaryAction>;
  private readonly frames: PrimaryFrames;
  private readonly captures: Captures;
  private readonly compressor: Compressor;
  private readonly due: CheckpointDue;
  private readonly watch: VmWatch;
  private readonly claims: Claims;
  private readonly requests = new CheckpointRequests();
  private readonly stops: (() => void)[] = [];
  /** Aborted when this role ends. */
  private readonly stopped = new AbortController();
  private doubt: { why: string; at: number } | undefined;
  /** Called once when this node may never speak again as primary; another may run the VM. */
  onFenced: (why: string) => void = () => undefined;
  /** Called once when the VM has ended and nobody is to run it. */
  onVmOver: (why: string, byGuest: boolean) => void = () => undefined;
  /** Called when this node goes on alone after a doubt, with why and when that began. */
  onAlone: (why: string, detectedAt: number) => void = () => undefined;

  constructor(context: NodeContext, parts: PrimaryParts) {
    this.context = context;
    this.parts = parts;
    const { pair } = this;
    const { clock, log, platform } = context;
    const { vm, nic, terms } = parts;
    const { signal } = this.stopped;
    const post = (event: PrimaryEvent) => this.post(event);
    this.driver = new Driver({
      ...{ machine: pair, log, name: 'primary' },
      noted: (event) => this.noteDoubt(event),
      perform: (action) => this.perform(action),
    });
    const want = (reason: CheckpointReason) => post({ kind: 'want', reason });
    this.frames = new PrimaryFrames({ ...parts, context, pair, want, pairing: () => this.pairing });
    this.compressor = platform.compressor();
    const { proxy, ingress } = this;
    const releaseIngress = () => this.frames.releaseIngress();
    this.captures = new Captures({ context, vm, nic, proxy, ingress, releaseIngress });
    if (parts.disks !== undefined)
      this.disks = new PrimaryDisks(context, parts.disks, (why) => post({ kind: 'linkLost', why }));
    this.seeker = new Seeker({
      ...{ context, vm, terms, pair, signal, plight: this.plight, disks: this.disks },
      isPaired: () => this.pairing !== undefined,
      found: (peer, links) => this.pairWith(peer, links),
    });
    this.offer = new Offer({
      ...{ clock, pair, signal, post, terms, troubles: parts.troubles, uplinkHealth: parts.uplinkHealth },
      peerUplink: (now) => this.pairing?.uplinkNews(now) ?? { problem: undefined, forMs: 0 },
      why: () => this.why,
    });
    this.watch = new VmWatch({ vm, clock, log, pair, post });
    const reached = (point: FaultPoint) => platform.reached(point, 0);
    this.claims = new Claims({ pair, terms, signal, post, reached, watch: this.watch, offer: this.offer });
    this.due = new CheckpointDue(context, vm);
  }

  get proxy(): PrimaryProxy {
    return this.frames.proxy;
  }

  get gate(): SpeechGate {
    return this.frames.gate;
  }

  get ingress(): Ingress {
    return this.frames.ingress;
  }

  /** Begins as a primary that is alone, and looks for its peer. */
  start(): void {
    const { clock, config } = this.context;
    this.parts.nic.handler = (frame) => during('guest frame', () => this.fromGuest(frame, clock.now()));
    this.stops.push(clock.every(tickMs, () => during('tick', () => this.tick(clock.now()))));
    this.stops.push(this.watch.start());
    if (config.protect.mode !== 'none') void this.seeker.seek();
  }

  // ---- frames ----

  /** A frame of the guest. */
  fromGuest(frame: Uint8Array, now: number): void {
    this.frames.fromGuest(frame, now);
  }

  /** A frame of the network. */
  fromNetwork(frame: Uint8Array): void {
    this.frames.fromNetwork(frame, this.context.clock.now());
  }

  /** The uplink has got on with what it was given: what has left is told to the secondary. */
  onSettled(): void {
    this.proxy.settled();
    this.gate.tellReleased();
  }

  /** Whether this node may say something to the network now, by its term or by what the secondary lends it. */
  get maySpeak(): boolean {
    this.gate.checkLease(this.context.clock.now());
    return this.gate.isOpen;
  }

  // ---- for the operator ----

  /** Why there is no secondary; '' while there is one. */
  get why(): string {
    const { protect, peers } = this.context.config;
    if (protect.mode === 'none') return 'its spec says protect.mode: none';
    return this.plight.text({
      ...{ kind: this.pair.state.kind, linked: this.pairing !== undefined, waiting: this.seeker.waitMs > 0 },
      peers: peers.map(({ node }) => node),
    });
  }

  /** An operator's checkpoint: resolves when one that was begun after it was asked for is applied. */
  checkpoint(): Promise<void> {
    const { kind } = this.pair.state;
    if (kind !== 'protected') return Promise.reject(this.notProtected(kind));
    const { request, done } = this.requests.add();
    this.post({ kind: 'want', reason: { kind: 'operator' }, request });
    return done;
  }

  private notProtected(kind: string): ColoError {
    const { why } = this;
    const now = this.seeker.hurry() ? 'a secondary is looked for now, without waiting any longer' : '';
    const hint = [why, now].filter((part) => part !== '').join('; ') || 'see `colo status`';
    return new ColoError(errorCodes.input, `the VM is not protected (${kind}): no checkpoint`, { hint });
  }

  /** Tells the peer that nothing is to be taken over: the operator ends the VM. */
  sayEnd(): void {
    this.pairing?.say(messages.end, encodeText('the primary was stopped by its operator'));
  }

  /** Ends everything of this role; the VM is the owner's. Safe to call again. */
  shutDown(): void {
    const why = 'this node is no longer the primary';
    this.stopped.abort();
    for (const stop of this.stops.splice(0)) stop();
    this.endPairing(why);
    this.disks?.close();
    this.frames.close();
    this.parts.nic.handler = undefined;
    this.offer.refused(why);
    this.requests.rejectAll(new ColoError(errorCodes.termLost, why));
  }

  // ---- the pairing ----

  /** A node will be the secondary; resolves when it has been told what machine it is to start. */
  private pairWith(peer: Peer, opened: PeerLinks): Promise<void> {
    const { context, parts, frames, pair, plight, seeker, disks, captures, compressor, records } = this;
    const { proxy, gate, addresses } = frames;
    const { clock } = context;
    const { terms, tolerance, vm } = parts;
    const links = new PairLinks(opened, clock);
    const mirror = disks?.mirrorTo(links.bulk);
    const post = (event: PrimaryEvent) => this.post(event);
    const checkpointer = new Checkpointer({ context, vm, links, mirror, captures, compressor, proxy, records, post });
    const pairing = new PrimaryPairing({
      ...{ links, checkpointer, mirror, disks, clock, tolerance, terms, pair, gate, proxy, addresses, plight, seeker },
      answered: (...frame) => frames.fromSecondary(...frame),
      ...{ post, postNow: (event) => this.driver.postNow(event) },
      lost: (why) => this.onPairingLost(pairing, why),
    });
    plight.reached(peer.node);
    tolerance.paired(peer.node, clock.now());
    this.pairing = pairing;
    pairing.begin();
    return checkpointer.sendSession(parts.template);
  }

  private onPairingLost(pairing: PrimaryPairing, why: string): void {
    this.pairing = undefined;
    this.plight.lost(why);
    if (!pairing.checkpointer.hasLoaded && this.pair.state.kind === 'protected') this.seeker.pause();
    this.post({ kind: 'linkLost', why });
  }

  private endPairing(why: string): void {
    this.pairing?.end(why);
    this.pairing = undefined;
  }

  private dropPeer(why: string): void {
    this.context.log.warn({ why }, 'the secondary is dropped');
    this.plight.lost(why);
    this.endPairing(why);
  }

  // ---- events and actions ----

  /** An event that is handled when the callback which brought it has returned. */
  private post(event: PrimaryEvent): void {
    this.driver.postLater(event);
  }

  private tick(now: number): void {
    this.pairing?.beat(now);
    this.gate.checkLease(now);
    this.pairing?.lookForSilence(now);
    this.proxy.poll(now);
    this.gate.tellReleased();
    this.frames.addresses.tick(now);
    this.offer.lookAtUplinks(now);
    const { state } = this.pair;
    if (state.kind !== 'protected' || state.phase !== 'running') return;
    const due = this.due.at(now);
    if (due !== undefined) this.post({ kind: 'want', reason: { kind: due } });
  }

  private noteDoubt(event: PrimaryEvent): void {
    const { state } = this.pair;
    if (state.kind !== 'suspecting' || this.doubt !== undefined) return;
    const now = this.context.clock.now();
    this.doubt = { why: state.why, at: now };
    if (event.kind === 'silence') this.parts.tolerance.suspects(this.pairing?.node ?? '', now);
  }

  private perform(action: PrimaryAction): void {
    const now = this.context.clock.now();
    switch (action.kind) {
      case 'startMirroring':
        return this.proxy.startMirroring();
      case 'sendRound':
        return this.inBackground('the copy of the RAM', (pairing) => pairing.checkpointer.sendRound(action.round));
      case 'claimPair':
        return void this.claims.pair(this.pairing?.node ?? '');
      case 'claimAlone':
        return void this.claims.alone(action.afterMs);
      case 'capture':
        return this.inBackground('a checkpoint', (pairing) => this.capture(pairing, action.reason));
      case 'release':
        return this.release(action.epoch, now);
      case 'compare':
        return this.compare(action.epoch, action.answers, now);
      case 'abortCapture':
        return this.pairing?.checkpointer.abort(action.epoch, now);
      case 'shutGate':
        return this.gate.set(false, now);
      case 'goAlone':
        return this.goAlone(now);
      case 'dropPeer':
        return this.dropPeer(action.why);
      case 'tellHandover':
        return this.pairing?.say(messages.handover, encodeText(action.why));
      case 'tellEnd':
        return this.endWithVm(action.why, action.byGuest);
      case 'fence':
        return this.fence(action.why);
    }
  }

  /** Captures and sends; what the secondary answers comes back as events. */
  private async capture({ checkpointer }: PrimaryPairing, reason: Reason): Promise<void> {
    await checkpointer.capture(reason);
    this.due.captured();
    await checkpointer.sendCheckpoint();
  }

  private release(epoch: number, now: number): void {
    this.context.platform.reached('commit.received', epoch);
    this.gate.checkLease(now);
    this.proxy.commit(epoch, now);
    this.gate.tellReleased();
    this.context.platform.reached('release.done', epoch);
  }

  private compare(epoch: number, answers: number, now: number): void {
    this.proxy.resumed(epoch, now);
    this.context.platform.reached('compare.begun', epoch);
    this.requests.answer(answers);
  }

  private goAlone(now: number): void {
    this.due.restart();
    this.gate.set(true, now);
    this.proxy.goAlone(now);
    if (this.doubt !== undefined) this.onAlone(this.doubt.why, this.doubt.at);
    this.doubt = undefined;
    this.offer.refused('the secondary did not take over: this node goes on');
    this.requests.rejectAll(new ColoError(errorCodes.checkpoint, 'the secondary was lost'));
  }

  private endWithVm(why: string, byGuest: boolean): void {
    this.pairing?.say(messages.end, encodeText(why));
    this.shutDown();
    this.onVmOver(why, byGuest);
  }

  private fence(why: string): void {
    this.offer.taken();
    this.shutDown();
    this.onFenced(why);
  }

  /** Does something for the secondary of now; how it fails is an event, never an exception that nobody sees. */
  private inBackground(what: string, work: (pairing: PrimaryPairing) => Promise<void>): void {
    const { pairing } = this;
    // Its loss is an event that is queued.
    if (pairing === undefined) return;
    work(pairing).catch(async (error: unknown) => {
      const why = errorText(error);
      this.context.log.warn({ error: why }, `${what} failed`);
      await this.watch.endHeard();
      // That pairing was dealt with, or will be with the peer's last words.
      if (!pairing.isEnding) this.failed(why);
    });
  }

  private failed(why: string): void {
    const { state } = this.pair;
    if (state.kind !== 'protected' || state.phase !== 'capturing') return this.post({ kind: 'linkLost', why });
    this.post({ kind: 'captureFailed', why });
    this.proxy.notCaptured();
  }
}
