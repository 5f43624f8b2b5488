// A node that is told to end by a signal: its host is switched off, or somebody means its process. That is a reason to
// hand over, never to end a VM: only its operator's `stop` does that. So it looks again and again whether it may go:
//
//   primary, protected      hands over; goes when the other node has the term
//   primary, alone          stays: it has the only copy. When it is protected again it hands over
//   secondary               tells its primary why, and goes when the record says that this one goes on alone. With its
//                           primary in doubt it stays, and may be the primary soon
//   anything else           goes: it has nothing of the VM

import type { Clock } from '../base/clock.ts';
import { retireEveryMs } from './limits.ts';
import type { Troubles } from './troubles.ts';

export class Retirement {
  private readonly parts: { clock: Clock; troubles: Troubles; giveUp: (why: string) => boolean };
  private readonly over = Promise.withResolvers<void>();
  private hasBegun = false;

  /** `giveUp`: does what may be done now, and says whether nothing of the VM is here any more. */
  constructor(parts: { clock: Clock; troubles: Troubles; giveUp: (why: string) => boolean }) {
    this.parts = parts;
  }

  /** Resolves when this node has given the VM up. */
  begin(why: string): Promise<void> {
    if (this.hasBegun) return this.over.promise;
    this.hasBegun = true;
    const { clock, troubles } = this.parts;
    const hint = 'it goes when another node has the VM; `colo rm` or Ctrl-C of `colo run` end the VM';
    troubles.tell('leaving', `this node was told to end (${why}): ${hint}`);
    let stop = () => undefined as void;
    const step = (): void => {
      if (!this.parts.giveUp(why)) return;
      stop();
      this.over.resolve();
    };
    stop = clock.every(retireEveryMs, step);
    step();
    return this.over.promise;
  }
}
