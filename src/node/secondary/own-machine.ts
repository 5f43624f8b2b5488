// What machine this node would run, beside what a primary says of its own: another host that would run another machine
// could not load the primary's state, or not go on from it. What this node's QEMU made of its machine is known once one
// has been started, and kept for a while, so that a primary that is unlike is refused before anything is started or
// taken from a replica.

import type { Clock } from '../../base/clock.ts';
import { ColoError, errorCodes } from '../../base/errors.ts';
import type { NodeConfig } from '../config.ts';
import { madeTraitsMs } from '../limits.ts';
import { type Machine, madeTraits, refuseUnlike, type Traits, toldTraits } from '../pairing/alike.ts';
import type { GuestVm } from '../platform.ts';

export class OwnMachine {
  private readonly config: NodeConfig;
  private readonly clock: Pick<Clock, 'now'>;
  private made: { traits: Traits; at: number } | undefined;

  constructor({ config, clock }: { config: NodeConfig; clock: Pick<Clock, 'now'> }) {
    this.config = config;
    this.clock = clock;
  }

  /** This node's QEMU has started it. */
  started(vm: Pick<GuestVm, 'qemuVersion' | 'facts'>): void {
    this.made = { traits: madeTraits(vm), at: this.clock.now() };
  }

  /** Throws when `theirs`, the primary's, is another machine, as far as that is known. */
  refuseUnlike(theirs: Machine | undefined): void {
    if (theirs === undefined)
      throw new ColoError(errorCodes.channel, 'the primary did not say what machine it runs', {
        hint: 'both nodes need the same version of COLO',
      });
    const { made, config } = this;
    const ours = { node: config.node, told: toldTraits(config), made: made?.traits ?? {} };
    refuseUnlike('told', theirs, ours);
    if (made !== undefined && this.clock.now() - made.at < madeTraitsMs) refuseUnlike('made', theirs, ours);
  }
}
