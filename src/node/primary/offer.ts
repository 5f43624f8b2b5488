// A handover that is no accident: an operator asked for it, this node is to end, or nobody reaches the guest through
// it. The pair offers the VM to its secondary (controller/primary-pair.ts); what becomes of it is told here to whoever
// asked, and the record is looked at until it is clear: as soon as the secondary has the term this node gives its copy
// up, so nobody sees two primaries for long.

import { type Clock, delay } from '../../base/clock.ts';
import { ColoError, errorCodes } from '../../base/errors.ts';
import { handsOverForUplink, type UplinkNews } from '../../controller/policy.ts';
import type { PrimaryEvent, PrimaryPair } from '../../controller/primary-pair.ts';
import { offerLookMs, yieldMs } from '../limits.ts';
import type { Terms } from '../terms.ts';
import type { Troubles } from '../troubles.ts';
import type { UplinkHealth } from '../uplink-health.ts';

export interface OfferParts {
  clock: Clock;
  pair: Pick<PrimaryPair, 'state'>;
  terms: Pick<Terms, 'isLost'>;
  troubles: Pick<Troubles, 'tell' | 'over'>;
  uplinkHealth: Pick<UplinkHealth, 'news'>;
  /** What the secondary of now says of its way to the network. */
  peerUplink: (now: number) => UplinkNews;
  /** Why there is no secondary. */
  why: () => string;
  /** Aborted when the role ends. */
  signal: AbortSignal;
  post: (event: PrimaryEvent) => void;
}

export class Offer {
  private readonly parts: OfferParts;
  private outcome: PromiseWithResolvers<void> | undefined;
  private isLeaving = false;

  constructor(parts: OfferParts) {
    this.parts = parts;
  }

  /** Resolves when the secondary has the term; rejects when this node goes on instead, or nobody could take over. */
  ask(why: string): Promise<void> {
    const { state } = this.parts.pair;
    if (state.kind !== 'protected' || !state.complete) {
      const hint = ['wait until `colo status` says protected', this.parts.why()]
        .filter((part) => part !== '')
        .join('; ');
      const text = `the VM is not protected (${state.kind}): nobody could take over`;
      return Promise.reject(new ColoError(errorCodes.input, text, { hint }));
    }
    if (state.handover === undefined) this.parts.post({ kind: 'handover', why });
    this.outcome ??= Promise.withResolvers<void>();
    return this.outcome.promise;
  }

  /**
   * As `ask`, for a node that is to end and asks again and again until it happens. In a doubt it leaves the term to its
   * peer first: what it won it could not keep.
   */
  make(why: string): void {
    this.isLeaving = true;
    this.ask(why).catch(() => undefined);
  }

  /**
   * Nobody reaches the guest through this node: the secondary takes over, if it is reached. Told in the status either
   * way.
   */
  lookAtUplinks(now: number): void {
    const { troubles, uplinkHealth, pair } = this.parts;
    const own = uplinkHealth.news(now);
    const peer = this.parts.peerUplink(now);
    if (peer.problem === undefined || peer.problem === '') troubles.over('peer uplink');
    else troubles.tell('peer uplink', `the network would not be reached through the secondary: ${peer.problem}`);
    const { state } = pair;
    if (state.kind === 'protected' && state.complete && handsOverForUplink({ own, peer }))
      this.ask(`the network is not reached through this node: ${own.problem}`).catch(() => undefined);
  }

  /** The secondary has the term, or will have it. */
  taken(): void {
    this.outcome?.resolve();
    this.outcome = undefined;
  }

  /** Nobody takes over. */
  refused(why: string): void {
    this.outcome?.reject(new ColoError(errorCodes.termLost, why));
    this.outcome = undefined;
  }

  /** Before this node claims the term that its peer may claim as well. */
  async yielded(): Promise<boolean> {
    return this.isLeaving && (await this.awaitTaken(yieldMs));
  }

  /** Returns when the secondary has the term, which is posted, or false when it has not taken it in time. */
  async awaitTaken(forMs: number): Promise<boolean> {
    const { clock, pair, terms, signal, post } = this.parts;
    for (const end = clock.now() + forMs; clock.now() < end; ) {
      await delay(offerLookMs, clock);
      if (signal.aborted || pair.state.kind !== 'suspecting') return true;
      if (!(await terms.isLost())) continue;
      post({ kind: 'aloneClaimed', outcome: 'lost' });
      return true;
    }
    return false;
  }
}
