// At every instant at which the primary is protected, the secondary holds one complete state that it can run. The other
// half of the sentence, that no copy is given up without need, is kept by the world itself (World.lookForHolders).

import type { Checker } from '../checker.ts';
import type { SimNode } from '../node.ts';
import type { World } from '../world.ts';

export function survivor(world: World): Checker {
  const checker = {
    name: 'survivor',
    sentence: 'Whenever a primary that is protected is lost, the secondary holds a complete state that it can run.',
  };
  const isProtected = ({ node, process, vm }: SimNode): boolean => {
    const state = node?.primary?.pair.state;
    const isRunning = process?.alive === true && vm?.alive === true && node !== undefined;
    if (!isRunning || state?.kind !== 'protected' || process === undefined) return false;
    return state.complete && node?.primary?.peer.heartbeat?.lease.valid(process.clock.now()) === true;
  };
  return {
    ...checker,
    aboutToLose: (node, what) => {
      const { other } = node;
      if (!isProtected(node) || other.vm === undefined || world.isStruck(other.vm) || !other.vm.alive) return;
      if (other.process?.alive !== true || world.heldBy(other) !== undefined) return;
      // It may have taken over already, or have lost the term to a primary that has not heard of it yet.
      if (world.record?.peer === null) return;
      const state = other.node?.secondary?.pair.state.kind ?? 'no secondary';
      world.violate(checker.name, checker.sentence, `${what} of ${node.name} while ${other.name} is ${state}`);
    },
  };
}
