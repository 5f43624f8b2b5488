// The primary's peer: finds a node that will be its secondary, holds the links to it, and hands on what it says.
//
//   seek ─► tryPeer ─► links, session ─► ready ─► heartbeat, messages ─┬─► lost: the link ended, or was silent
//    ▲                                                                 └─► dropped: PrimaryPair says so
//    └── again once the pair is alone and has no links
//
// Which node to ask is decided here; what a message means is decided by whom it is handed to: the pair (as an event),
// the proxy, the checkpointer or the disks.

import { ColoError, errorCodes, errorText } from '../../base/errors.ts';
import type { LinkKind } from '../../channel/link.ts';
import type { UplinkNews } from '../../controller/policy.ts';
import { HeartbeatPrimary } from '../../heartbeat/primary.ts';
import type { Peer } from '../config.ts';
import { addressesEveryMs, diskPauseMsFirst, diskPauseMsMax, reconnectMs, unprotectedSilenceMs } from '../limits.ts';
import { PairLinks } from '../pairing/links.ts';
import { countAt, countBytes, decodeText, egressHeadBytes, messages, numberAt } from '../pairing/message.ts';
import { troubleOf } from '../vm-watch.ts';
import type { PrimaryNode } from './primary.ts';
import { Plight } from './unprotected-reason.ts';

export class PrimaryPeer {
  links: PairLinks | undefined;
  heartbeat: HeartbeatPrimary | undefined;
  readonly plight = new Plight();
  /** The guest has addresses that the secondary was not told yet: it may never see its own guest claim them. */
  hasNewAddresses = false;
  /** What the peer said last of its way to the network, and when. */
  private uplink: { problem: string; at: number } | undefined;
  private readonly node: PrimaryNode;
  private addressesToldAt = Number.NEGATIVE_INFINITY;
  /** When the peer last said anything. */
  private heardAt = 0;
  /** After a secondary that took in everything and could not run it: the next one would most likely fare the same. */
  private pauseMs = 0;
  private notBefore = 0;

  constructor(node: PrimaryNode) {
    this.node = node;
  }

  /** Asks the other nodes in their order whenever there is no peer, until the role ends. */
  async seek(): Promise<void> {
    const { config, clock } = this.node.context;
    while (!this.node.stopped.signal.aborted) {
      for (const peer of config.peers) if (this.isSeeking) await this.tryPeer(peer);
      await new Promise<void>((resolve) => void clock.after(reconnectMs, resolve));
    }
  }

  lookForSilence(now: number): void {
    if (this.heartbeat?.detector.suspects(now) === true) this.node.post({ kind: 'silence' });
    this.giveUpSilentCandidate(now);
  }

  tellNewAddresses(now: number): void {
    if (this.hasNewAddresses && now - this.addressesToldAt >= addressesEveryMs) this.tellAddresses(now);
  }

  /** This peer is the secondary no more, or was never to be. */
  drop(why: string): void {
    this.plight.lost(why);
    this.heartbeat?.closed();
    this.heartbeat = undefined;
    this.close(why);
  }

  close(why: string): void {
    this.links?.close(why);
    this.links = undefined;
  }

  uplinkNews(now: number): UplinkNews {
    const { uplink } = this;
    if (this.links === undefined || uplink === undefined) return { problem: undefined, forMs: 0 };
    return { problem: uplink.problem, forMs: now - uplink.at };
  }

  /** In how long another node is asked, while none is for a reason of the disks or of the machine. */
  get waitMs(): number {
    const { disks, context } = this.node;
    const now = context.clock.now();
    return Math.max(0, this.notBefore - now, disks === undefined ? 0 : disks.waitMs(now));
  }

  /** A checkpoint of this machine runs over there. */
  loaded(): void {
    this.pauseMs = 0;
  }

  /**
   * A secondary that had everything and leaves before it has loaded it: each further try would copy all of it for
   * nothing.
   */
  private pauseUnlessLoaded(): void {
    const { checkpointer, pair, context } = this.node;
    if (checkpointer.hasLoaded || pair.state.kind !== 'protected') return;
    this.pauseMs = Math.min(diskPauseMsMax, Math.max(diskPauseMsFirst, this.pauseMs * 2));
    this.notBefore = context.clock.now() + this.pauseMs;
  }

  /** Another node is asked at once; false when that was so anyway. */
  hurry(): boolean {
    const isWaiting = this.node.pair.state.kind === 'alone' && this.waitMs > 0;
    this.notBefore = 0;
    this.node.disks?.hurry();
    return isWaiting;
  }

  /** Why there is no secondary; '' while there is one. */
  get why(): string {
    const { pair, context } = this.node;
    const { protect, peers } = context.config;
    if (protect.mode === 'none') return 'its spec says protect.mode: none';
    return this.plight.text({
      ...{ kind: pair.state.kind, linked: this.links !== undefined, waiting: this.waitMs > 0 },
      peers: peers.map(({ node }) => node),
    });
  }

  private get isSeeking(): boolean {
    const { stopped, pair } = this.node;
    return this.waitMs <= 0 && !stopped.signal.aborted && pair.state.kind === 'alone' && this.links === undefined;
  }

  private async tryPeer(peer: Peer): Promise<void> {
    const { context, parts, stopped, checkpointer } = this.node;
    try {
      await this.refuseUnwell();
      const term = parts.terms.record?.term ?? 0;
      const opened = await context.platform.openLinks(peer, term, stopped.signal);
      if (!this.isSeeking) {
        for (const link of Object.values(opened)) link.destroy();
        return;
      }
      this.heardAt = context.clock.now();
      this.plight.reached(peer.node);
      this.uplink = undefined;
      parts.tolerance.paired(peer.node, this.heardAt);
      this.links = new PairLinks(opened, {
        message: (kind, type, payload) => this.onMessage(kind, type, payload),
        lost: (why) => this.onLost(why),
        clock: context.clock,
      });
      await checkpointer.sendSession(parts.template);
    } catch (error) {
      this.plight.refused(peer.node, errorText(error));
      context.log.debug({ peer: peer.node, error: errorText(error) }, 'no secondary there yet');
    }
  }

  /**
   * A machine that does not run, or lost a device, would make a secondary that is no better. One that was not started
   * yet, or waits for room on its own disk, goes on by itself.
   */
  private async refuseUnwell(): Promise<void> {
    const condition = await this.node.parts.vm.condition();
    const goesOn = condition.runState === 'io-error' || condition.runState === 'prelaunch';
    const trouble = troubleOf(condition, goesOn ? 'stands' : 'runs');
    if (trouble !== undefined) throw new ColoError(errorCodes.machine, `this node cannot protect it: ${trouble}`);
  }

  /** Before it is protected nothing waits for the peer, so it has time; but a host that died may never close a link. */
  private giveUpSilentCandidate(now: number): void {
    const { kind } = this.node.pair.state;
    if (this.links === undefined || (kind !== 'alone' && kind !== 'syncing')) return;
    if (now - this.heardAt < unprotectedSilenceMs) return;
    const why = 'it said nothing while it was to become the secondary';
    this.links.close(why);
    this.onLost(why);
  }

  private onLost(why: string): void {
    const { disks, gate } = this.node;
    // Before anything else: the peer may take over from the end of the links on.
    gate.shutIfPaired();
    this.heartbeat?.closed();
    this.links = undefined;
    this.plight.lost(why);
    this.pauseUnlessLoaded();
    // At once: a stop that is under way waits for writes that wait for the peer.
    disks?.drop(why);
    this.node.post({ kind: 'linkLost', why });
  }

  private onMessage(kind: LinkKind, type: number, payload: Uint8Array): void {
    const now = this.node.context.clock.now();
    this.heardAt = now;
    if (kind === 'beat') {
      if (this.heartbeat?.receive(type, payload, now) === false)
        throw new ColoError(errorCodes.channel, 'the peer sent something else than an echo');
      return;
    }
    this.node.gate.checkLease(now);
    if (kind !== 'packet') throw new ColoError(errorCodes.channel, `the peer sent type ${type} on the ${kind} link`);
    this.onPacket(type, payload, now);
  }

  private onPacket(type: number, payload: Uint8Array, now: number): void {
    const { node } = this;
    switch (type) {
      case messages.egress:
        node.fromSecondary(countAt(payload, 0), numberAt(payload, countBytes), payload.subarray(egressHeadBytes), now);
        return;
      case messages.tolerated:
        node.proxy.tolerated(payload, now);
        return;
      case messages.ready:
        this.onReady(now);
        return;
      case messages.committed:
        // Handled in the order of the link: the answers of the new epoch come behind it.
        node.checkpointer.committed(countAt(payload, 0), now);
        node.postNow({ kind: 'committed', epoch: countAt(payload, 0) });
        return;
      case messages.applied:
        node.postNow({ kind: 'applied', epoch: node.checkpointer.applied(payload) });
        return;
      case messages.diskHeld:
        node.disks?.held(countAt(payload, 0));
        return;
      case messages.diskKept:
        node.disks?.kept(countAt(payload, 0));
        return;
      case messages.uplink:
        this.uplink = { problem: decodeText(payload), at: now };
        return;
      case messages.diskFailed:
        this.plight.said(decodeText(payload));
        node.disks?.failed(decodeText(payload));
        return;
      case messages.leaving:
        this.plight.said(decodeText(payload));
        node.post({ kind: 'linkLost', why: `the secondary says: ${decodeText(payload)}` });
        return;
      case messages.refused:
        node.post({ kind: 'refused', epoch: countAt(payload, 0), why: decodeText(payload.subarray(countBytes)) });
        return;
      default:
        throw new ColoError(errorCodes.channel, `the peer sent an unknown message of type ${type}`);
    }
  }

  private onReady(now: number): void {
    const links = this.links;
    if (links === undefined) return;
    const { terms, tolerance } = this.node.parts;
    const term = terms.record?.term ?? 0;
    const send = (type: number, payload: Uint8Array) => links.beat.send(type, payload);
    this.heartbeat = new HeartbeatPrimary({ send }, { term, now, tolerance });
    this.tellAddresses(now);
    this.node.post({ kind: 'peerReady' });
  }

  private tellAddresses(now: number): void {
    this.hasNewAddresses = false;
    this.addressesToldAt = now;
    this.links?.packet.send(messages.addresses, this.node.parts.addresses.encode());
  }
}
