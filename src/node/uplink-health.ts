// Whether the network can be reached through this node: asked again and again, told in the status, and to the peer. A
// primary whose way is gone while that of its secondary is well hands over (controller/policy.ts); with both gone it
// stays, and alarms.

import type { Clock } from '../base/clock.ts';
import type { UplinkNews } from '../controller/policy.ts';
import type { Uplink } from '../netdev/endpoint.ts';
import { uplinkLookMs } from './limits.ts';
import type { Troubles } from './troubles.ts';

export class UplinkHealth {
  /** '' while it is well. */
  problem = '';
  private since = 0;
  private readonly clock: Clock;
  private readonly troubles: Troubles;

  constructor(parts: { clock: Clock; troubles: Troubles }) {
    this.clock = parts.clock;
    this.troubles = parts.troubles;
  }

  /** Returns what ends it. */
  watch(uplink: Pick<Uplink, 'problem'>): () => void {
    return this.clock.every(uplinkLookMs, () => this.look(uplink.problem));
  }

  news(now: number): UplinkNews {
    return { problem: this.problem, forMs: now - this.since };
  }

  private look(problem: string): void {
    if ((this.problem === '') !== (problem === '')) this.since = this.clock.now();
    this.problem = problem;
    if (problem === '') this.troubles.over('uplink');
    else this.troubles.tell('uplink', `the network is not reached through this node: ${problem}`);
  }
}
