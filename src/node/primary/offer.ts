// A handover that is no accident: an operator asked for it, this node is to end, or nobody reaches the guest through it. The pair offers the VM to its secondary
// (controller/primary-pair.ts); what becomes of it is told here to whoever asked, and the record is looked at until it is
// clear: as soon as the secondary has the term this node gives its copy up, so nobody sees two primaries for long.

import { delay } from '../../base/clock.ts';
import { ColoError, errorCodes } from '../../base/errors.ts';
import { handsOverForUplink } from '../../controller/policy.ts';
import { offerLookMs, yieldMs } from '../limits.ts';
import type { PrimaryNode } from './primary.ts';

export class Offer {
  private readonly node: PrimaryNode;
  private outcome: PromiseWithResolvers<void> | undefined;
  private isLeaving = false;

  constructor(node: PrimaryNode) {
    this.node = node;
  }

  /** Resolves when the secondary has the term; rejects when this node goes on instead, or nobody could take over. */
  ask(why: string): Promise<void> {
    const { pair, peer } = this.node;
    const { state } = pair;
    if (state.kind !== 'protected' || !state.complete) {
      const hint = ['wait until `colo status` says protected', peer.why].filter((part) => part !== '').join('; ');
      const text = `the VM is not protected (${state.kind}): nobody could take over`;
      return Promise.reject(new ColoError(errorCodes.input, text, { hint }));
    }
    if (state.handover === undefined) this.node.post({ kind: 'handover', why });
    this.outcome ??= Promise.withResolvers<void>();
    return this.outcome.promise;
  }

  /**
   * As `ask`, for a node that is to end and asks again and again until it happens. In a doubt it leaves the term to its peer
   * first: what it won it could not keep.
   */
  make(why: string): void {
    this.isLeaving = true;
    this.ask(why).catch(() => undefined);
  }

  /** Nobody reaches the guest through this node: the secondary takes over, if it is reached. Told in the status either way. */
  lookAtUplinks(now: number): void {
    const { troubles, uplinkHealth } = this.node.parts;
    const own = uplinkHealth.news(now);
    const peer = this.node.peer.uplinkNews(now);
    if (peer.problem === undefined || peer.problem === '') troubles.over('peer uplink');
    else troubles.tell('peer uplink', `the network would not be reached through the secondary: ${peer.problem}`);
    const { state } = this.node.pair;
    if (state.kind === 'protected' && state.complete && handsOverForUplink({ own, peer }))
      this.ask(`the network is not reached through this node: ${own.problem}`).catch(() => undefined);
  }

  taken(): void {
    this.outcome?.resolve();
    this.outcome = undefined;
  }

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
    const { context, pair, parts, stopped } = this.node;
    const { clock } = context;
    for (const end = clock.now() + forMs; clock.now() < end; ) {
      await delay(offerLookMs, clock);
      if (stopped.signal.aborted || pair.state.kind !== 'suspecting') return true;
      if (!(await parts.terms.isLost())) continue;
      this.node.post({ kind: 'aloneClaimed', outcome: 'lost' });
      return true;
    }
    return false;
  }
}
