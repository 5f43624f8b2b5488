// What an operator has stopped stays stopped: when a primary is stopped and can ask the arbiter, the secondary's copy
// is never run any more, also when the stop's own word did not reach it. A fresh guest may be booted. What a node was
// just writing when it was stopped, and leaves late (sim/network/uplink.ts), is not said by a guest that runs.

import type { Checker } from '../world/checker.ts';
import type { World } from '../world/world.ts';

export const sentence = 'A VM that its operator has stopped on its primary is not taken over.';

export function stopped(world: World): Checker {
  const checker = {
    name: 'stopped',
    sentence,
  };
  let by: string | undefined;
  return {
    ...checker,
    stopped: (node) => {
      // An arbiter that the node cannot ask confirms nothing, and the stop says so.
      const { cut, lose, delayMs } = world.reach[node.name];
      if (world.record?.owner === node.name && !cut && lose === 0 && delayMs < 100) by = node.name;
    },
    booted: () => {
      by = undefined;
    },
    frameLeft: (node, _frame, late) => {
      if (late || by === undefined || node.name === by || node.vm === undefined || node.vm.loadedFrom === 0) return;
      world.violate(checker.name, checker.sentence, `${node.name} speaks for the guest that was stopped on ${by}`);
    },
  };
}
