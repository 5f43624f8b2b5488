// Whether the primary may say something to the network now, and what it tells the secondary of what it has said.
//
// Alone it speaks by its term. While paired, its release gate (proxy/gate.ts) is open only as long as the secondary's
// echoes lend the right to speak (heartbeat/lease.ts): who is about to release or hand in a frame asks `checkLease`
// first.

import type { Clock } from '../../base/clock.ts';
import type { Log } from '../../base/log.ts';
import type { PrimaryPair } from '../../controller/primary-pair.ts';
import type { PrimaryProxy } from '../../proxy/primary.ts';
import { encodeCount, messages } from '../pairing/message.ts';

/** What the gate asks of the pairing of now. */
export interface GatePairing {
  /** What the secondary lends; undefined before it is ready. */
  readonly lease: { valid(now: number): boolean } | undefined;
  say(type: number, ...parts: Uint8Array[]): void;
}

export interface SpeechGateParts {
  clock: Pick<Clock, 'now'>;
  log: Pick<Log, 'debug'>;
  pair: Pick<PrimaryPair, 'state'>;
  proxy: Pick<PrimaryProxy, 'setGate' | 'releasedEpoch'>;
  /** Undefined without a secondary. */
  pairing: () => GatePairing | undefined;
}

export class SpeechGate {
  private readonly parts: SpeechGateParts;
  private open = true;
  private releasedTold = 0;

  constructor(parts: SpeechGateParts) {
    this.parts = parts;
  }

  get isOpen(): boolean {
    return this.open;
  }

  /** Opens or shuts the gate as the lease says. A protected primary whose links are over is lent nothing. */
  checkLease(now: number): void {
    const { pair, pairing } = this.parts;
    if (pair.state.kind === 'protected') this.set(pairing()?.lease?.valid(now) === true, now);
  }

  set(open: boolean, now: number): void {
    if (open === this.open) return;
    this.open = open;
    this.parts.log.debug({ open }, 'release gate');
    this.parts.proxy.setGate(open, now);
  }

  /** The lease ends with the link, at once: before the event is handled. */
  shutIfPaired(): void {
    const { pair, clock } = this.parts;
    if (pair.state.kind === 'protected') this.set(false, clock.now());
  }

  /** With the gate shut the frames of a commit wait: the secondary must keep its copy of them until they have left. */
  tellReleased(): void {
    const { proxy } = this.parts;
    const epoch = proxy.releasedEpoch;
    const pairing = this.parts.pairing();
    if (epoch <= this.releasedTold || pairing === undefined) return;
    this.releasedTold = epoch;
    pairing.say(messages.released, encodeCount(epoch));
  }
}
