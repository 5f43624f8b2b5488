// The secondary's shell: owns the SVM, applies checkpoints, sends the SVM's answers to the primary, and takes over when
// SecondaryPair (controller/) has the term. What comes over the bulk link is in bulk.ts.
//
//   packet link ──► proxy ──► nic ──► SVM ──► nic ──► proxy ──► packet link
//   bulk link ────► stager ──complete──► SecondaryPair ──► commit, apply
//   uplink ───────► (kept for the takeover; nothing is ever sent on it before)

import { delay } from '../../base/clock.ts';
import { ColoError, errorCodes, errorText } from '../../base/errors.ts';
import { Fifo } from '../../base/fifo.ts';
import { during } from '../../base/loop-watch.ts';
import type { LinkKind } from '../../channel/link.ts';
import { encodeApplied } from '../../checkpoint/message.ts';
import { type SecondaryAction, type SecondaryEvent, SecondaryPair } from '../../controller/secondary-pair.ts';
import { HeartbeatSecondary } from '../../heartbeat/secondary.ts';
import { SecondaryProxy } from '../../proxy/secondary.ts';
import type { NodeContext } from '../context.ts';
import { Driver } from '../driver.ts';
import {
  diskLookMs,
  earlyFramesMax,
  earlyMs,
  offerLookMs,
  spokenFramesMax,
  takeoverRetryMs,
  takeoverTriesMax,
  tickMs,
  unprotectedSilenceMs,
  yieldMs,
} from '../limits.ts';
import { PairLinks } from '../pairing/links.ts';
import {
  countAt,
  decodeNumbers,
  decodeText,
  encodeCount,
  encodeEgressHead,
  encodeText,
  type Marker,
  messages,
  numberAt,
  parseMarker,
} from '../pairing/message.ts';
import type { GuestVm, PeerLinks } from '../platform.ts';
import type { SharedParts } from '../shared-parts.ts';
import { signOfLife, troubleOf, watchMonitor } from '../vm-watch.ts';
import type { Applier } from './applier.ts';
import { SecondaryBulk } from './bulk.ts';
import { Candidate, destroyAll } from './candidate.ts';

/** What a node has in hand when it has taken over; it goes on as a primary with it. */
export interface Inheritance {
  applier: Applier;
  /** The connections from before; none when they could not be told. */
  table?: Uint8Array;
  why: string;
  detectedAt: number;
  takenOverAt: number;
  /** Frames for the network, in order, before anything else is said. */
  resend: Uint8Array[];
  /** What the guest has said since this node stopped speaking for it as the secondary; it still grows. */
  spoken: Uint8Array[];
  /** Frames of the network that came while nobody answered. */
  early: Uint8Array[];
}

export class SecondaryNode {
  readonly pair = new SecondaryPair();
  readonly context: NodeContext;
  applier: Applier | undefined;
  proxy: SecondaryProxy;
  links: PairLinks | undefined;
  private readonly candidate: Candidate;
  private readonly bulk = new SecondaryBulk(this);
  private readonly shared: SharedParts;
  private readonly driver: Driver<SecondaryEvent, SecondaryAction>;
  private server: { close(): Promise<void> } | undefined;
  private heartbeat: HeartbeatSecondary | undefined;
  private readonly early = new Fifo<{ at: number; frame: Uint8Array }>();
  private readonly stops: (() => void)[] = [];
  private suspectedAt = 0;
  /** It has told its primary that it is to end. */
  private isRetiring = false;
  /** Its primary has asked it to take over. */
  private isAsked = false;
  /** What the primary of now was told of the uplink of this node. */
  private uplinkTold: string | undefined;
  /** When the primary last said anything. */
  private heardAt = 0;
  private applying: Promise<void> = Promise.resolve();
  /** Resolves when nothing is being freed. */
  private leaving: Promise<void> = Promise.resolve();
  /** Called when this node has taken over: it is the primary from now on. */
  onTakenOver: (inheritance: Inheritance) => void = () => undefined;

  constructor(context: NodeContext, shared: SharedParts) {
    this.context = context;
    this.shared = shared;
    this.candidate = new Candidate(context, shared.terms);
    this.driver = new Driver({
      ...{ machine: this.pair, log: context.log, name: 'secondary' },
      noted: (event, before) => this.noteDoubt(event, before),
      perform: (action) => this.perform(action),
    });
    this.proxy = this.newProxy();
  }

  async start(): Promise<void> {
    this.server = await this.context.platform.acceptLinks({
      busy: () => (this.isBusy ? 'this node is paired already' : undefined),
      paired: (links) => void this.onPaired(links),
    });
    this.stops.push(this.context.clock.every(tickMs, () => during('tick', () => this.tick(this.context.clock.now()))));
    this.stops.push(this.context.clock.every(diskLookMs, () => this.bulk.lookAtDisks()));
    // One that hangs answers no guest's frame and applies nothing: its primary is better off alone. Once the primary is
    // in doubt this copy is better than none.
    this.stops.push(
      watchMonitor(this.context.clock, {
        vm: () => (this.pair.state.kind === 'protected' ? this.applier?.vm : undefined),
        hangs: (why, vm) => {
          if (this.pair.state.kind !== 'protected' || this.applier?.vm !== vm) return;
          this.post({ kind: 'vmEnded', why });
          vm.end();
        },
        answered: (vm) => void this.lookAt(vm),
      }),
    );
  }

  /**
   * A machine whose guest crashed or lost a device while it runs here is no copy of the primary's. One that waits for
   * room on its own disk is let try again, by the next load or by a takeover.
   */
  private async lookAt(vm: GuestVm): Promise<void> {
    const before = this.pair.state;
    if (before.kind !== 'protected' || before.applying || this.context.config.protect.mode !== 'colo') return;
    const condition = await vm.condition().catch(() => undefined);
    // A load may have stopped it meanwhile, and looks at it itself.
    if (this.pair.state !== before || this.applier?.vm !== vm || condition === undefined) return;
    const trouble = troubleOf(condition, condition.runState === 'io-error' ? 'stands' : 'runs');
    if (trouble !== undefined) this.post({ kind: 'vmEnded', why: `the SVM is not well: ${trouble}` });
  }

  /** A frame of the network: nobody asked us yet, so it is only remembered. */
  fromNetwork(frame: Uint8Array): void {
    const now = this.context.clock.now();
    this.early.push({ at: now, frame: Uint8Array.from(frame) });
    this.forgetEarly(now);
  }

  /** Frames of before are no news to a guest: whoever still wants an answer has asked again. */
  private forgetEarly(now: number): void {
    for (let oldest = this.early.peek(); oldest !== undefined; oldest = this.early.peek()) {
      if (this.early.length <= earlyFramesMax && now - oldest.at <= earlyMs) break;
      this.early.shift();
    }
  }

  /**
   * Gives up the copy, at once: from then on this node does not claim the term. False, and nothing was done, when the
   * primary is in doubt: then this copy may be the last one.
   */
  dismiss(why: string): boolean {
    // What is to be noticed now is noticed first: this node may have stood still.
    this.tick(this.context.clock.now());
    // The links are lost, and only what was lent to the primary has to run out before that counts (onLinksLost).
    const isInDoubt = this.pair.state.kind === 'protected' && this.links === undefined;
    if (isInDoubt || this.pair.isNeeded) return false;
    this.post({ kind: 'dismissed', why });
    return true;
  }

  /**
   * As `dismiss`, for a node that is to end and asks again and again until it may. A copy that could go on is kept
   * until the record says that the primary goes on alone: it may be dying as well.
   */
  retire(why: string): boolean {
    if (this.pair.state.kind !== 'protected') return this.dismiss(why);
    if (!this.isRetiring) this.links?.packet.send(messages.leaving, encodeText(why));
    this.isRetiring = true;
    return false;
  }

  /** Ends this role; the VM with it. */
  async stop(): Promise<void> {
    await this.shutDown('this node ends its part in the VM');
    await this.leaving;
    await this.bulk.opening;
    const applier = this.applier;
    this.applier = undefined;
    await applier?.close();
  }

  post(event: SecondaryEvent): void {
    this.driver.postNow(event);
  }

  private async shutDown(why: string): Promise<void> {
    for (const stop of this.stops.splice(0)) stop();
    this.links?.close(why);
    this.links = undefined;
    this.candidate.end();
    await this.server?.close();
  }

  private noteDoubt(event: SecondaryEvent, before: string): void {
    if (this.pair.state.kind !== 'suspecting' || before === 'suspecting') return;
    this.suspectedAt = this.context.clock.now();
    this.isAsked = event.kind === 'handover';
    if (event.kind === 'silence') this.shared.tolerance.suspects(this.links?.beat.peer.node ?? '', this.suspectedAt);
  }

  private perform(action: SecondaryAction): void {
    switch (action.kind) {
      case 'commit':
        this.context.platform.reached('stage.complete', action.epoch);
        this.links?.packet.send(messages.committed, encodeCount(action.epoch));
        this.context.platform.reached('commit.sent', action.epoch);
        return;
      case 'apply':
        this.applying = this.apply(action.epoch);
        return;
      case 'withhold':
        this.heartbeat?.withhold();
        return;
      case 'claimAlone':
        void this.claimAlone();
        return;
      case 'takeOver':
        void this.takeOver(action.why);
        return;
      case 'leave':
        this.leaving = this.leave(action.why);
        return;
    }
  }

  /**
   * Claims when the own QEMU gives a sign of life: the primary may be starved and no more, and a node whose QEMU hangs
   * would take the term from it and could not serve. The primary claims as well, and does the same.
   */
  private async claimAlone(): Promise<void> {
    if (this.isRetiring && !this.isAsked && (await this.isLeftToPrimary()))
      return this.post({ kind: 'aloneClaimed', outcome: 'lost' });
    const vm = this.applier?.vm;
    while (vm !== undefined) {
      const sign = await signOfLife(vm);
      if (sign === 'lives') break;
      // One that is gone says so; one that is silent is asked again, since there may be no other copy.
      if (sign === 'gone' || this.pair.state.kind !== 'suspecting') return;
      if (await this.shared.terms.isLost()) return this.post({ kind: 'aloneClaimed', outcome: 'lost' });
    }
    this.post({ kind: 'aloneClaimed', outcome: await this.shared.terms.claimAlone() });
  }

  /** A node that is to end leaves the term to the primary that it has told so, unless that does not take it in time. */
  private async isLeftToPrimary(): Promise<boolean> {
    const { clock } = this.context;
    for (const end = clock.now() + yieldMs; clock.now() < end && this.pair.state.kind === 'suspecting'; ) {
      if (await this.shared.terms.isLost()) return true;
      await delay(offerLookMs, clock);
    }
    return false;
  }

  private async apply(epoch: number): Promise<void> {
    const applier = this.applier;
    if (applier === undefined) return;
    try {
      const result = await applier.apply(epoch, this.proxy);
      this.links?.packet.send(messages.applied, encodeApplied(result));
      this.context.platform.reached('apply.done', epoch);
      if (result.verified !== null) this.shared.verified[result.verified ? 'equal' : 'different'] += 1;
      if (result.verified === false) this.post({ kind: 'applyFailed', epoch, why: 'the RAM differs after the apply' });
      else {
        this.post({ kind: 'applied', epoch });
        void this.lookAt(applier.vm);
      }
    } catch (error) {
      this.post({ kind: 'applyFailed', epoch, why: `checkpoint ${epoch} could not be applied: ${errorText(error)}` });
    }
  }

  /** The term is won: only what the VM cannot do without may keep it from going on here. */
  private async takeOver(why: string): Promise<void> {
    const applier = this.applier;
    if (applier === undefined) return;
    this.context.platform.reached('takeover.claimed', 0);
    await this.applying;
    const spoken: Uint8Array[] = [];
    const listen = (frame: Uint8Array) => void (spoken.length < spokenFramesMax && spoken.push(Uint8Array.from(frame)));
    // In remus mode the guest begins to run here, and nobody else listens to it.
    if (this.context.config.protect.mode === 'remus') applier.nic.handler = listen;
    if (!(await this.untilRunnable(applier))) return;
    this.context.platform.reached('takeover.runnable', 0);
    const now = this.context.clock.now();
    // Without it connections from before are not gone on with; without the VM nothing is.
    const said = this.shared.troubles.isolate('table', () => this.proxy.takeover(now));
    applier.nic.handler = listen;
    for (const frame of said?.replay ?? []) applier.nic.send(frame);
    this.forgetEarly(now);
    const early = [...this.early].map((entry) => entry.frame);
    this.applier = undefined;
    await this.shutDown('this node has taken the VM over');
    this.post({ kind: 'tookOver' });
    this.onTakenOver({
      ...{ applier, why, early, spoken, resend: said?.resend ?? [] },
      ...(said === undefined ? {} : { table: said.table }),
      detectedAt: this.suspectedAt,
      takenOverAt: this.context.clock.now(),
    });
  }

  /** False when it cannot be made to run, or is gone: it is given up then. It has nobody else, so it is tried again. */
  private async untilRunnable(applier: Applier): Promise<boolean> {
    const { terms, troubles } = this.shared;
    const isOver = () => this.pair.state.kind !== 'taking-over' || this.applier !== applier;
    for (let tries = 1; ; tries += 1)
      try {
        await applier.makeRunnable(terms.record?.term ?? 0, troubles);
        return !isOver();
      } catch (error) {
        const why = `the copy that is to go on cannot be made to run: ${errorText(error)}`;
        this.context.log.error({ why, tries }, 'takeover');
        if (isOver()) return false;
        const isGone = (await signOfLife(applier.vm)) === 'gone';
        if (isGone || tries >= takeoverTriesMax) {
          this.post({ kind: 'takeoverFailed', why });
          return false;
        }
        await delay(takeoverRetryMs, this.context.clock);
      }
  }

  private async leave(why: string): Promise<void> {
    this.context.log.warn({ why }, 'this node holds no runnable copy');
    this.links?.close(why);
    this.links = undefined;
    this.heartbeat = undefined;
    await this.bulk.opening;
    await this.applying;
    const applier = this.applier;
    this.applier = undefined;
    await applier
      ?.close()
      .catch((error: unknown) => this.context.log.error({ error: errorText(error) }, 'the SVM is not gone'));
    this.proxy = this.newProxy();
    this.post({ kind: 'left' });
  }

  private tick(now: number): void {
    this.tellUplink();
    const state = this.pair.state;
    if (state.kind === 'protected' && this.heartbeat?.mayTakeOver(now) === true) this.post({ kind: 'silence' });
    // A host that died may never close a link, and this node must be free for another primary.
    if (state.kind !== 'joining' || now - this.heardAt < unprotectedSilenceMs) return;
    const why = 'the primary said nothing while its state was to be copied';
    this.links?.close(why);
    this.onLinksLost(why, true);
  }

  private tellUplink(): void {
    const { problem } = this.shared.uplinkHealth;
    // A node that is not followed yet is told nothing.
    if (this.links === undefined || this.applier === undefined || this.uplinkTold === problem) return;
    this.uplinkTold = problem;
    this.links.packet.send(messages.uplink, encodeText(problem));
  }

  // ---- what the primary says ----

  private get isBusy(): boolean {
    return this.links !== undefined || this.candidate.isAsked || this.pair.state.kind !== 'idle';
  }

  private async onPaired(links: PeerLinks): Promise<void> {
    if (this.isBusy) destroyAll(links);
    else if (await this.candidate.isPrimary(links)) this.follow(links);
  }

  private follow(links: PeerLinks): void {
    const now = this.context.clock.now();
    this.bulk.paired();
    this.uplinkTold = undefined;
    this.heardAt = now;
    this.post({ kind: 'session' });
    const { tolerance } = this.shared;
    tolerance.paired(links.beat.peer.node, now);
    const send = (type: number, payload: Uint8Array) => links.beat.send(type, payload);
    this.heartbeat = new HeartbeatSecondary({ send }, { now, tolerance, term: links.beat.peer.term });
    this.links = new PairLinks(links, {
      message: (kind, type, payload) => this.onMessage(kind, type, payload),
      lost: (why, byPeer) => this.onLinksLost(why, byPeer),
      clock: this.context.clock,
    });
  }

  /**
   * Links that the peer ended leave it no lease. One that this node gave up may be all that is wrong: the primary may
   * speak on what it was lent last, so that has to run out first.
   */
  onLinksLost(why: string, byPeer: boolean): void {
    const { heartbeat } = this;
    const { clock } = this.context;
    this.links = undefined;
    heartbeat?.withhold();
    if (byPeer) heartbeat?.closed();
    const waitMs = heartbeat === undefined ? 0 : heartbeat.grant.waitMs(clock.now());
    if (waitMs <= 0) this.post({ kind: 'linkLost', why });
    else
      clock.after(waitMs, () => {
        if (this.heartbeat === heartbeat) this.post({ kind: 'linkLost', why });
      });
  }

  private onMessage(kind: LinkKind, type: number, payload: Uint8Array): void {
    const now = this.context.clock.now();
    this.heardAt = now;
    if (kind === 'beat') {
      if (this.heartbeat?.receive(type, payload, now) === false)
        throw new ColoError(errorCodes.channel, 'the peer sent something else than a beat');
    } else if (kind === 'bulk') this.bulk.receive(type, payload);
    else this.onPacket(type, payload, now);
  }

  private onMarker({ epoch, at }: Marker, now: number): void {
    const here = at === undefined ? undefined : this.heartbeat?.peerClock.here(at);
    // Not later than it was heard of, whatever the beats were late.
    this.applier?.marked(epoch, Math.min(now, here ?? now));
    this.proxy.captureMarker(epoch);
  }

  private onPacket(type: number, payload: Uint8Array, now: number): void {
    switch (type) {
      case messages.ingress:
        return this.proxy.fromPrimary(payload, now);
      case messages.isn:
        return this.proxy.isn(payload.subarray(4), numberAt(payload, 0), now);
      case messages.marker:
        return this.onMarker(parseMarker(payload), now);
      case messages.abort:
        return this.proxy.abortMarker(countAt(payload, 0));
      case messages.replay:
        return this.proxy.logOnly(payload);
      case messages.confirm:
        return this.proxy.confirm(decodeNumbers(payload));
      case messages.released:
        return this.proxy.released(countAt(payload, 0));
      case messages.handover:
        return this.post({ kind: 'handover', why: decodeText(payload) });
      case messages.end:
        return this.post({ kind: 'guestEnded', why: decodeText(payload) });
      case messages.tolerate:
        if (this.proxy.tolerate(payload)) this.links?.packet.send(messages.tolerated, payload);
        return;
      case messages.addresses:
        if (this.shared.addresses.accept(payload, now)) return;
        throw new ColoError(errorCodes.channel, 'the peer sent addresses that are none');
      default:
        throw new ColoError(errorCodes.channel, `the peer sent an unknown message of type ${type}`);
    }
  }

  /** The SVM of a session stands ready, paused. */
  adopt(applier: Applier): void {
    this.applier = applier;
    this.proxy = this.newProxy();
    applier.nic.handler = (frame) => during('guest frame', () => this.proxy.fromGuest(frame, this.context.clock.now()));
    // Not the applier: this lives as long as the VM does, and the shadow of the RAM must not.
    const { vm } = applier;
    void vm.exited.then((end) => {
      if (this.applier?.vm === vm)
        this.post({ kind: 'vmEnded', why: `the SVM ended (${end.signal ?? `code ${end.code}`})` });
    });
  }

  private newProxy(): SecondaryProxy {
    const mode = this.context.config.protect.mode === 'remus' ? 'remus' : 'colo';
    return new SecondaryProxy(
      {
        toGuest: (frame) => this.applier?.nic.send(frame),
        toPrimary: (epoch, id, frame) => this.links?.packet.send(messages.egress, encodeEgressHead(epoch, id), frame),
      },
      { mode, bypass: this.context.config.network?.bypass ?? [] },
    );
  }
}
