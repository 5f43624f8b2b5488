// The secondary's shell: follows one primary after another, and does what SecondaryPair (controller/) decides, until
// this node takes over.
//
//   packet link ──► proxy ──► nic ──► SVM ──► nic ──► proxy ──► packet link
//   bulk link ────► stager ──complete──► SecondaryPair ──► commit, apply
//   uplink ───────► (kept for the takeover; nothing is ever sent on it before)
//
// What belongs to one primary (links, heartbeat, the SVM, the proxy) is its pairing (pairing.ts).

import { delay } from '../../base/clock.ts';
import { errorText } from '../../base/errors.ts';
import { during } from '../../base/loop-watch.ts';
import { type SecondaryAction, type SecondaryEvent, SecondaryPair } from '../../controller/secondary-pair.ts';
import type { SecondaryProxy } from '../../proxy/secondary.ts';
import type { NodeContext } from '../context.ts';
import { Driver } from '../driver.ts';
import {
  diskLookMs,
  offerLookMs,
  spokenFramesMax,
  takeoverRetryMs,
  takeoverTriesMax,
  tickMs,
  yieldMs,
} from '../limits.ts';
import { PairLinks } from '../pairing/links.ts';
import { encodeText, messages } from '../pairing/message.ts';
import type { GuestVm, PeerLinks } from '../platform.ts';
import type { SharedParts } from '../shared-parts.ts';
import { type Sign, signOfLife, watchMonitor } from '../vm-watch.ts';
import type { Applier } from './applier.ts';
import { Candidate, destroyAll } from './candidate.ts';
import { EarlyFrames } from './early-frames.ts';
import { OwnMachine } from './own-machine.ts';
import { SecondaryPairing } from './pairing.ts';

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
  /** The primary that is followed, or was until this node is sure what to do with its copy. */
  pairing: SecondaryPairing | undefined;
  private readonly candidate: Candidate;
  private readonly machine: OwnMachine;
  private readonly shared: SharedParts;
  private readonly driver: Driver<SecondaryEvent, SecondaryAction>;
  private readonly early = new EarlyFrames();
  private readonly stops: (() => void)[] = [];
  private server: { close(): Promise<void> } | undefined;
  private suspectedAt = 0;
  /** It has told its primary that it is to end. */
  private isRetiring = false;
  /** Its primary has asked it to take over. */
  private isAsked = false;
  /** Resolves when nothing is being freed. */
  private leaving: Promise<void> = Promise.resolve();
  /** Called when this node has taken over: it is the primary from now on. */
  onTakenOver: (inheritance: Inheritance) => void = () => undefined;
  /** Called when this node has the term and lost its copy before it could go on with it. */
  onOrphaned: (why: string) => void = () => undefined;

  constructor(context: NodeContext, shared: SharedParts) {
    this.context = context;
    this.shared = shared;
    this.candidate = new Candidate(context, shared.terms);
    this.machine = new OwnMachine(context);
    this.driver = new Driver({
      ...{ machine: this.pair, log: context.log, name: 'secondary' },
      noted: (event, before) => this.noteDoubt(event, before),
      perform: (action) => this.perform(action),
    });
  }

  async start(): Promise<void> {
    const { clock, platform } = this.context;
    this.server = await platform.acceptLinks({
      busy: () => (this.isBusy ? 'this node is paired already' : undefined),
      paired: (links) => void this.onPaired(links),
    });
    this.stops.push(clock.every(tickMs, () => during('tick', () => this.pairing?.tick(clock.now()))));
    this.stops.push(clock.every(diskLookMs, () => this.pairing?.lookAtDisks()));
    this.stops.push(this.watchSvm());
  }

  /** The SVM, once it stands ready. */
  get applier(): Applier | undefined {
    return this.pairing?.applier;
  }

  get proxy(): SecondaryProxy | undefined {
    return this.pairing?.proxy;
  }

  /** A frame of the network: nobody asked us yet, so it is only remembered. */
  fromNetwork(frame: Uint8Array): void {
    this.early.add(frame, this.context.clock.now());
  }

  /**
   * Gives up the copy, at once: from then on this node does not claim the term. False, and nothing was done, when the
   * primary is in doubt: then this copy may be the last one.
   */
  dismiss(why: string): boolean {
    // What is to be noticed now is noticed first: this node may have stood still.
    this.pairing?.tick(this.context.clock.now());
    // The links are lost, and only what was lent to the primary has to run out before that counts.
    const isInDoubt = this.pair.state.kind === 'protected' && this.pairing?.links.isOver !== false;
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
    if (!this.isRetiring) this.pairing?.links.say(messages.leaving, encodeText(why));
    this.isRetiring = true;
    return false;
  }

  /** Ends this role; the VM with it. */
  async stop(): Promise<void> {
    const why = 'this node ends its part in the VM';
    this.pairing?.close(why);
    await this.shutDown();
    await this.leaving;
    await this.pairing?.end(why, true);
    this.pairing = undefined;
  }

  private post(event: SecondaryEvent): void {
    this.driver.postNow(event);
  }

  private async shutDown(): Promise<void> {
    for (const stop of this.stops.splice(0)) stop();
    this.candidate.end();
    await this.server?.close();
  }

  /**
   * One that hangs answers no guest's frame and applies nothing: its primary is better off alone. Once the primary is
   * in doubt this copy is better than none.
   */
  private watchSvm(): () => void {
    const followed = () => (this.pair.state.kind === 'protected' ? this.applier?.vm : undefined);
    return watchMonitor(this.context.clock, {
      vm: followed,
      hangs: (why, vm) => {
        if (followed() !== vm) return;
        this.post({ kind: 'vmEnded', why });
        vm.end();
      },
      answered: (vm: GuestVm) => void this.pairing?.lookAt(vm),
    });
  }

  private noteDoubt(event: SecondaryEvent, before: string): void {
    if (this.pair.state.kind !== 'suspecting' || before === 'suspecting') return;
    this.suspectedAt = this.context.clock.now();
    this.isAsked = event.kind === 'handover';
    if (event.kind === 'silence') this.shared.tolerance.suspects(this.pairing?.node ?? '', this.suspectedAt);
  }

  private perform(action: SecondaryAction): void {
    switch (action.kind) {
      case 'commit':
        return this.pairing?.commit(action.epoch);
      case 'apply':
        return this.pairing?.apply(action.epoch);
      case 'withhold':
        return this.pairing?.withhold();
      case 'claimAlone':
        return void this.claimAlone();
      case 'takeOver':
        return void this.takeOver(action.why);
      case 'leave':
        this.leaving = this.leave(action.why);
        return;
    }
  }

  // ---- whom it follows ----

  private get isBusy(): boolean {
    return this.pairing !== undefined || this.candidate.isAsked || this.pair.state.kind !== 'idle';
  }

  private async onPaired(links: PeerLinks): Promise<void> {
    if (this.isBusy) destroyAll(links);
    else if (await this.candidate.isPrimary(links)) this.follow(links);
  }

  private follow(opened: PeerLinks): void {
    const { context, pair, machine, shared } = this;
    this.isRetiring = false;
    const links = new PairLinks(opened, context.clock);
    shared.tolerance.paired(links.beat.peer.node, context.clock.now());
    const post = (event: SecondaryEvent) => this.post(event);
    this.pairing = new SecondaryPairing({ context, links, pair, machine, shared, post });
    this.post({ kind: 'session' });
    this.pairing.begin();
  }

  private async leave(why: string): Promise<void> {
    const { log } = this.context;
    log.warn({ why }, 'this node holds no runnable copy');
    await this.pairing
      ?.end(why, false)
      .catch((error: unknown) => log.error({ error: errorText(error) }, 'the SVM is not gone'));
    this.pairing = undefined;
    this.post({ kind: 'left' });
    this.lookForOrphan();
  }

  // ---- takeover ----

  /**
   * Claims when the own QEMU gives a sign of life: the primary may be starved and no more, and a node whose QEMU hangs
   * would take the term from it and could not serve. The primary claims as well, and does the same.
   */
  private async claimAlone(): Promise<void> {
    const vm = this.applier?.vm;
    if (vm === undefined) return;
    if (this.isRetiring && !this.isAsked && (await this.isLeftToPrimary()))
      return this.post({ kind: 'aloneClaimed', outcome: 'lost' });
    // Its copy may end while it waits, and while the arbiter is asked: then that of the primary is the last one.
    const isWanted = () => this.pair.state.kind === 'suspecting' && this.applier?.vm === vm;
    for (let sign: Sign = 'silent'; sign !== 'lives'; ) {
      if (!isWanted()) return;
      sign = await signOfLife(vm);
      // One that is gone says so; one that is silent is asked again, since there may be no other copy.
      if (sign === 'gone') return;
      if (sign === 'silent' && (await this.shared.terms.isLost()))
        return this.post({ kind: 'aloneClaimed', outcome: 'lost' });
    }
    this.post({ kind: 'aloneClaimed', outcome: await this.shared.terms.claimAlone(isWanted) });
    this.lookForOrphan();
  }

  /** The term is this node's, and it has no copy any more: nobody else will run the VM. */
  private lookForOrphan(): void {
    const { record } = this.shared.terms;
    if (this.pair.state.kind !== 'idle' || record?.owner !== this.context.config.node || record.peer !== null) return;
    this.onOrphaned(this.pair.state.why);
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

  /** The term is won: only what the VM cannot do without may keep it from going on here. */
  private async takeOver(why: string): Promise<void> {
    const { pairing } = this;
    const { platform, clock, config } = this.context;
    const applier = pairing?.applier;
    if (pairing === undefined || applier === undefined) return;
    platform.reached('takeover.claimed', 0);
    await pairing.applied;
    const spoken: Uint8Array[] = [];
    const listen = (frame: Uint8Array) => void (spoken.length < spokenFramesMax && spoken.push(Uint8Array.from(frame)));
    // In remus mode the guest begins to run here, and nobody else listens to it.
    if (config.protect.mode === 'remus') applier.nic.handler = listen;
    if (!(await this.untilRunnable(applier))) return;
    platform.reached('takeover.runnable', 0);
    const now = clock.now();
    // Without it connections from before are not gone on with; without the VM nothing is.
    const said = this.shared.troubles.isolate('table', () => pairing.proxy.takeover(now));
    applier.nic.handler = listen;
    for (const frame of said?.replay ?? []) applier.nic.send(frame);
    const early = this.early.recent(now);
    pairing.handOn('this node has taken the VM over');
    this.pairing = undefined;
    await this.shutDown();
    this.post({ kind: 'tookOver' });
    this.onTakenOver({
      ...{ applier, why, early, spoken, resend: said?.resend ?? [] },
      ...(said === undefined ? {} : { table: said.table }),
      detectedAt: this.suspectedAt,
      takenOverAt: clock.now(),
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
}
