// One secondary of a primary, from its links to its end. All that belongs to it is here: the links, the heartbeat over
// them, its copy of the machine (checkpointer.ts) and of the disks (disk-mirror.ts).
//
//   links ─► begin: session ─► ready ─► beats, checkpoints, answers ─┬─► lost: the links are over, or were silent
//                                                                    └─► ended: PrimaryPair drops it, or the role ends
//
// It is made for its links and ends once; a new secondary gets a new one. From its end on it lends no right to speak,
// hears and says nothing, and what was begun for it finds its links over.
//
// It decides nothing: what the peer says goes to the pair (as an event), the proxy, the checkpointer or the disks.

import type { Clock } from '../../base/clock.ts';
import { ColoError, errorCodes } from '../../base/errors.ts';
import type { LinkKind } from '../../channel/link.ts';
import type { UplinkNews } from '../../controller/policy.ts';
import type { PrimaryEvent, PrimaryPair } from '../../controller/primary-pair.ts';
import type { Lease } from '../../heartbeat/lease.ts';
import { HeartbeatPrimary } from '../../heartbeat/primary.ts';
import type { Tolerance } from '../../heartbeat/tolerance.ts';
import type { PrimaryProxy } from '../../proxy/primary.ts';
import { unprotectedSilenceMs } from '../limits.ts';
import type { PairLinks } from '../pairing/links.ts';
import { countAt, countBytes, decodeText, egressHeadBytes, messages, numberAt } from '../pairing/message.ts';
import type { Terms } from '../terms.ts';
import type { AddressNews } from './address-news.ts';
import type { Checkpointer } from './checkpoint/checkpointer.ts';
import type { DiskMirror } from './disks/disk-mirror.ts';
import type { PrimaryDisks } from './disks/disks.ts';
import type { Seeker } from './seeker.ts';
import type { SpeechGate } from './speech-gate.ts';
import type { Plight } from './unprotected-reason.ts';

export interface PairingParts {
  links: PairLinks;
  checkpointer: Checkpointer;
  /** Where the VM has disks. */
  mirror: Pick<DiskMirror, 'held' | 'kept' | 'end'> | undefined;
  disks: Pick<PrimaryDisks, 'failed' | 'protectedNow'> | undefined;
  clock: Pick<Clock, 'now'>;
  tolerance: Tolerance;
  terms: Pick<Terms, 'record'>;
  pair: Pick<PrimaryPair, 'state'>;
  gate: Pick<SpeechGate, 'checkLease' | 'shutIfPaired'>;
  proxy: Pick<PrimaryProxy, 'tolerated'>;
  addresses: Pick<AddressNews, 'tell'>;
  plight: Pick<Plight, 'said' | 'protectedNow'>;
  seeker: Pick<Seeker, 'loaded'>;
  /** A frame of the SVM, made in `epoch`. */
  answered: (epoch: number, id: number, frame: Uint8Array, now: number) => void;
  /** An event for the pair: later, or before what comes behind it on its link. */
  post: (event: PrimaryEvent) => void;
  postNow: (event: PrimaryEvent) => void;
  /** The links are lost; it has ended already. */
  lost: (why: string) => void;
}

export class PrimaryPairing {
  readonly node: string;
  private readonly parts: PairingParts;
  /** From when the secondary is ready. */
  private heartbeat: HeartbeatPrimary | undefined;
  /** What the peer said last of its way to the network, and when. */
  private uplink: { problem: string; at: number } | undefined;
  /** When the peer last said anything. */
  private heardAt: number;
  private isEnded = false;

  constructor(parts: PairingParts) {
    this.parts = parts;
    this.node = parts.links.beat.peer.node;
    this.heardAt = parts.clock.now();
  }

  /** From now on the peer is heard. */
  begin(): void {
    this.parts.links.start({
      message: (kind, type, payload) => this.onMessage(kind, type, payload),
      lost: (why) => this.lose(why),
    });
  }

  get links(): PairLinks {
    return this.parts.links;
  }

  /** What it lends to this primary; undefined before it is ready. */
  get lease(): Lease | undefined {
    return this.heartbeat?.lease;
  }

  get checkpointer(): Checkpointer {
    return this.parts.checkpointer;
  }

  /** The peer has said goodbye; what it said before that may still come. */
  get isEnding(): boolean {
    return this.isEnded || this.parts.links.ending;
  }

  say(type: number, ...parts: Uint8Array[]): void {
    this.parts.links.say(type, ...parts);
  }

  beat(now: number): void {
    this.heartbeat?.tick(now);
  }

  lookForSilence(now: number): void {
    if (this.heartbeat?.detector.suspects(now) === true) this.parts.post({ kind: 'silence' });
    this.giveUpSilentCandidate(now);
  }

  uplinkNews(now: number): UplinkNews {
    const { uplink } = this;
    return uplink === undefined
      ? { problem: undefined, forMs: 0 }
      : { problem: uplink.problem, forMs: now - uplink.at };
  }

  /** This peer is the secondary no more, or was never to be. Says goodbye when the links stand. */
  end(why: string): void {
    if (this.isEnded) return;
    this.isEnded = true;
    const { links, mirror, checkpointer } = this.parts;
    this.heartbeat?.closed();
    links.close(why);
    // At once: a stop that is under way waits for writes that wait for the peer.
    mirror?.end(why);
    checkpointer.end();
  }

  private lose(why: string): void {
    // Before anything else: the peer may take over from the end of the links on.
    this.parts.gate.shutIfPaired();
    this.end(why);
    this.parts.lost(why);
  }

  /** Before it is protected nothing waits for the peer, so it has time; but a host that died may never close a link. */
  private giveUpSilentCandidate(now: number): void {
    const { pair, links } = this.parts;
    const { kind } = pair.state;
    if (links.isOver || (kind !== 'alone' && kind !== 'syncing')) return;
    if (now - this.heardAt < unprotectedSilenceMs) return;
    this.lose('it said nothing while it was to become the secondary');
  }

  private onMessage(kind: LinkKind, type: number, payload: Uint8Array): void {
    const { clock, gate } = this.parts;
    const now = clock.now();
    this.heardAt = now;
    if (kind === 'beat') return this.onBeat(type, payload, now);
    gate.checkLease(now);
    if (kind !== 'packet') throw new ColoError(errorCodes.channel, `the peer sent type ${type} on the ${kind} link`);
    this.onPacket(type, payload, now);
  }

  private onBeat(type: number, payload: Uint8Array, now: number): void {
    if (this.heartbeat?.receive(type, payload, now) === false)
      throw new ColoError(errorCodes.channel, 'the peer sent something else than an echo');
  }

  private onPacket(type: number, payload: Uint8Array, now: number): void {
    const { parts } = this;
    switch (type) {
      case messages.egress:
        parts.answered(countAt(payload, 0), numberAt(payload, countBytes), payload.subarray(egressHeadBytes), now);
        return;
      case messages.tolerated:
        return parts.proxy.tolerated(payload, now);
      case messages.ready:
        return this.onReady(now);
      case messages.committed:
        return this.onCommitted(countAt(payload, 0), now);
      case messages.applied:
        return this.onApplied(payload);
      case messages.diskHeld:
        return parts.mirror?.held(countAt(payload, 0));
      case messages.diskKept:
        return parts.mirror?.kept(countAt(payload, 0));
      case messages.uplink:
        this.uplink = { problem: decodeText(payload), at: now };
        return;
      case messages.diskFailed:
        parts.plight.said(decodeText(payload));
        return parts.disks?.failed(decodeText(payload));
      case messages.leaving:
        parts.plight.said(decodeText(payload));
        return parts.post({ kind: 'linkLost', why: `the secondary says: ${decodeText(payload)}` });
      case messages.refused:
        parts.post({ kind: 'refused', epoch: countAt(payload, 0), why: decodeText(payload.subarray(countBytes)) });
        return;
      default:
        throw new ColoError(errorCodes.channel, `the peer sent an unknown message of type ${type}`);
    }
  }

  private onReady(now: number): void {
    const { links, terms, tolerance, addresses, post } = this.parts;
    const send = (type: number, payload: Uint8Array) => links.beat.send(type, payload);
    this.heartbeat = new HeartbeatPrimary({ send }, { term: terms.record?.term ?? 0, now, tolerance });
    addresses.tell(now);
    post({ kind: 'peerReady' });
  }

  /** Handled in the order of the link: the answers of the new epoch come behind it. */
  private onCommitted(epoch: number, now: number): void {
    const { checkpointer, disks, plight, postNow } = this.parts;
    if (checkpointer.committed(epoch, now)) {
      disks?.protectedNow();
      plight.protectedNow();
    }
    postNow({ kind: 'committed', epoch });
  }

  private onApplied(payload: Uint8Array): void {
    const { checkpointer, seeker, postNow } = this.parts;
    const epoch = checkpointer.applied(payload);
    seeker.loaded();
    postNow({ kind: 'applied', epoch });
  }
}
