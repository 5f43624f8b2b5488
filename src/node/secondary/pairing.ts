// One primary that this node follows, from its links until this node has left it or taken over from it. All that
// belongs to it is here: the links, the heartbeat over them, the SVM that is its copy, the proxy before that, and the
// checkpoint that is being applied.
//
//   links ─► begin ─► (bulk.ts: SVM started) ─► ready ─► checkpoints, frames, beats ─┬─► links lost: the copy stays
//                                                                                    ├─► close, end: it is given up
//                                                                                    └─► handOn: it goes on
//
// The links may be over long before the pairing is: what this node then does with its copy is SecondaryPair's to
// decide. The pairing ends once. From then on it posts nothing: what was begun for it is nobody's.

import type { Clock } from '../../base/clock.ts';
import { ColoError, errorCodes, errorText } from '../../base/errors.ts';
import { during } from '../../base/loop-watch.ts';
import type { LinkKind } from '../../channel/link.ts';
import { encodeApplied } from '../../checkpoint/message.ts';
import type { SecondaryEvent, SecondaryPair } from '../../controller/secondary-pair.ts';
import { HeartbeatSecondary } from '../../heartbeat/secondary.ts';
import { SecondaryProxy } from '../../proxy/secondary.ts';
import type { NodeContext } from '../context.ts';
import { unprotectedSilenceMs } from '../limits.ts';
import type { PairLinks } from '../pairing/links.ts';
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
import type { GuestVm } from '../platform.ts';
import type { SharedParts } from '../shared-parts.ts';
import { troubleOf } from '../vm-watch.ts';
import type { Applier } from './applier.ts';
import { SecondaryBulk } from './bulk.ts';
import type { OwnMachine } from './own-machine.ts';

export interface SecondaryPairingParts {
  context: NodeContext;
  links: PairLinks;
  pair: Pick<SecondaryPair, 'state'>;
  machine: OwnMachine;
  shared: Pick<SharedParts, 'tolerance' | 'addresses' | 'uplinkHealth' | 'verified'>;
  post: (event: SecondaryEvent) => void;
}

export class SecondaryPairing {
  /** The primary. */
  readonly node: string;
  readonly proxy: SecondaryProxy;
  /** The SVM, from when it stands ready until the pairing ends. */
  applier: Applier | undefined;
  private readonly parts: SecondaryPairingParts;
  private readonly clock: Clock;
  private readonly heartbeat: HeartbeatSecondary;
  private readonly bulk: SecondaryBulk;
  /** What the primary was told of the uplink of this node. */
  private uplinkTold: string | undefined;
  /** When the primary last said anything. */
  private heardAt: number;
  private applying: Promise<void> = Promise.resolve();
  private isEnded = false;

  constructor(parts: SecondaryPairingParts) {
    const { links, context, shared, pair, machine } = parts;
    const { beat } = links;
    this.parts = parts;
    this.clock = context.clock;
    this.node = beat.peer.node;
    this.heardAt = this.clock.now();
    const send = (type: number, payload: Uint8Array) => beat.send(type, payload);
    const options = { now: this.heardAt, tolerance: shared.tolerance, term: beat.peer.term };
    this.heartbeat = new HeartbeatSecondary({ send }, options);
    this.proxy = this.newProxy();
    this.bulk = new SecondaryBulk({
      ...{ context, links, pair, machine },
      wrongWith: (state) => this.proxy.wrongWith(state),
      opened: (applier) => this.adopt(applier),
      applier: () => this.applier,
      post: (event) => this.post(event),
    });
  }

  /** From now on the primary is heard. */
  begin(): void {
    this.parts.links.start({
      message: (kind, type, payload) => this.onMessage(kind, type, payload),
      lost: (why, byPeer) => this.lose(why, byPeer),
    });
  }

  get links(): PairLinks {
    return this.parts.links;
  }

  /** Whether the primary is silent, and what it was lent has run out. */
  mayTakeOver(now: number): boolean {
    return this.heartbeat.mayTakeOver(now);
  }

  /** Lends the primary nothing more. */
  withhold(): void {
    this.heartbeat.withhold();
  }

  tick(now: number): void {
    this.tellUplink();
    const { pair, links } = this.parts;
    if (pair.state.kind === 'protected' && this.mayTakeOver(now)) this.post({ kind: 'silence' });
    // A host that died may never close a link, and this node must be free for another primary.
    if (pair.state.kind !== 'joining' || now - this.heardAt < unprotectedSilenceMs) return;
    const why = 'the primary said nothing while its state was to be copied';
    links.close(why);
    this.lose(why, true);
  }

  /** To be called every `diskLookMs`. */
  lookAtDisks(): void {
    this.bulk.lookAtDisks();
  }

  /** The staged checkpoint is complete: from here on this node may never run from an older state. */
  commit(epoch: number): void {
    const { context, links } = this.parts;
    context.platform.reached('stage.complete', epoch);
    links.say(messages.committed, encodeCount(epoch));
    context.platform.reached('commit.sent', epoch);
  }

  /** Applies what is staged; what comes of it is an event. */
  apply(epoch: number): void {
    this.applying = this.applyNow(epoch);
  }

  /** Resolves when nothing is being applied. */
  get applied(): Promise<void> {
    return this.applying;
  }

  /**
   * A machine whose guest crashed or lost a device while it runs here is no copy of the primary's. One that waits for
   * room on its own disk is let try again, by the next load or by a takeover.
   */
  async lookAt(vm: GuestVm): Promise<void> {
    const { pair, context } = this.parts;
    const before = pair.state;
    if (before.kind !== 'protected' || before.applying || context.config.protect.mode !== 'colo') return;
    const condition = await vm.condition().catch(() => undefined);
    // A load may have stopped it meanwhile, and looks at it itself.
    if (pair.state !== before || this.applier?.vm !== vm || condition === undefined) return;
    const trouble = troubleOf(condition, condition.runState === 'io-error' ? 'stands' : 'runs');
    if (trouble !== undefined) this.post({ kind: 'vmEnded', why: `the SVM is not well: ${trouble}` });
  }

  /** The copy goes on as the VM: the links are closed, and whoever called has the SVM from now on. */
  handOn(why: string): void {
    this.applier = undefined;
    this.close(why);
  }

  /** The pairing ends, and says why; the copy is still here. */
  close(why: string): void {
    this.isEnded = true;
    this.links.close(why);
  }

  /**
   * The copy is given up: resolves when the SVM is gone. `isHurried`: a checkpoint that is being applied is not waited
   * for.
   */
  async end(why: string, isHurried: boolean): Promise<void> {
    this.close(why);
    await this.bulk.opening;
    if (!isHurried) await this.applying;
    const { applier } = this;
    this.applier = undefined;
    await applier?.close();
  }

  private post(event: SecondaryEvent): void {
    if (!this.isEnded) this.parts.post(event);
  }

  private async applyNow(epoch: number): Promise<void> {
    const { applier, proxy } = this;
    const { links, context, shared } = this.parts;
    if (applier === undefined) return;
    try {
      const result = await applier.apply(epoch, proxy);
      links.say(messages.applied, encodeApplied(result));
      context.platform.reached('apply.done', epoch);
      if (result.verified !== null) shared.verified[result.verified ? 'equal' : 'different'] += 1;
      if (result.verified === false)
        return this.post({ kind: 'applyFailed', epoch, why: 'the RAM differs after the apply' });
      this.post({ kind: 'applied', epoch });
      void this.lookAt(applier.vm);
    } catch (error) {
      this.post({ kind: 'applyFailed', epoch, why: `checkpoint ${epoch} could not be applied: ${errorText(error)}` });
    }
  }

  private tellUplink(): void {
    const { shared, links } = this.parts;
    const { problem } = shared.uplinkHealth;
    // A primary that is not followed yet is told nothing.
    if (links.isOver || this.applier === undefined || this.uplinkTold === problem) return;
    this.uplinkTold = problem;
    links.say(messages.uplink, encodeText(problem));
  }

  /**
   * Links that the peer ended leave it no lease. One that this node gave up may be all that is wrong: the primary may
   * speak on what it was lent last, so that has to run out first.
   */
  private lose(why: string, byPeer: boolean): void {
    const { heartbeat, clock } = this;
    heartbeat.withhold();
    if (byPeer) heartbeat.closed();
    const waitMs = heartbeat.grant.waitMs(clock.now());
    if (waitMs <= 0) this.post({ kind: 'linkLost', why });
    else clock.after(waitMs, () => this.post({ kind: 'linkLost', why }));
  }

  /** The SVM of the session stands ready, paused. */
  private adopt(applier: Applier): void {
    this.applier = applier;
    const { proxy, clock } = this;
    applier.nic.handler = (frame) => during('guest frame', () => proxy.fromGuest(frame, clock.now()));
    // Not the applier: this lives as long as the VM does, and the shadow of the RAM must not.
    const { vm } = applier;
    void vm.exited.then((end) => {
      if (this.applier?.vm === vm)
        this.post({ kind: 'vmEnded', why: `the SVM ended (${end.signal ?? `code ${end.code}`})` });
    });
  }

  // ---- what the primary says ----

  private onMessage(kind: LinkKind, type: number, payload: Uint8Array): void {
    const now = this.clock.now();
    this.heardAt = now;
    if (kind === 'bulk') this.bulk.receive(type, payload);
    else if (kind === 'packet') this.onPacket(type, payload, now);
    else if (!this.heartbeat.receive(type, payload, now))
      throw new ColoError(errorCodes.channel, 'the peer sent something else than a beat');
  }

  private onPacket(type: number, payload: Uint8Array, now: number): void {
    const { proxy } = this;
    switch (type) {
      case messages.ingress:
        return proxy.fromPrimary(payload, now);
      case messages.isn:
        return proxy.isn(payload.subarray(4), numberAt(payload, 0), now);
      case messages.marker:
        return this.onMarker(parseMarker(payload), now);
      case messages.abort:
        return proxy.abortMarker(countAt(payload, 0));
      case messages.replay:
        return proxy.logOnly(payload);
      case messages.confirm:
        return proxy.confirm(decodeNumbers(payload));
      case messages.released:
        return proxy.released(countAt(payload, 0));
      case messages.handover:
        return this.post({ kind: 'handover', why: decodeText(payload) });
      case messages.end:
        return this.post({ kind: 'guestEnded', why: decodeText(payload) });
      case messages.tolerate:
        if (proxy.tolerate(payload)) this.links.say(messages.tolerated, payload);
        return;
      case messages.addresses:
        return this.onAddresses(payload, now);
      default:
        throw new ColoError(errorCodes.channel, `the peer sent an unknown message of type ${type}`);
    }
  }

  private onMarker({ epoch, at }: Marker, now: number): void {
    const here = at === undefined ? undefined : this.heartbeat.peerClock.here(at);
    // Not later than it was heard of, whatever the beats were late.
    this.applier?.marked(epoch, Math.min(now, here ?? now));
    this.proxy.captureMarker(epoch);
  }

  private onAddresses(payload: Uint8Array, now: number): void {
    if (!this.parts.shared.addresses.accept(payload, now))
      throw new ColoError(errorCodes.channel, 'the peer sent addresses that are none');
  }

  private newProxy(): SecondaryProxy {
    const { links, context } = this.parts;
    const { protect, network } = context.config;
    return new SecondaryProxy(
      {
        toGuest: (frame) => this.applier?.nic.send(frame),
        toPrimary: (epoch, id, frame) => links.say(messages.egress, encodeEgressHead(epoch, id), frame),
      },
      { mode: protect.mode === 'remus' ? 'remus' : 'colo', bypass: network?.bypass ?? [] },
    );
  }
}
