// What an operator has stopped stays stopped: when a primary's stop is confirmed by the arbiter, the secondary's copy is
// never run any more, also when the stop's own word did not reach it. A fresh guest may be booted.

import type { Checker } from '../checker.ts';
import type { World } from '../world.ts';

export function stopped(world: World): Checker {
  const checker = {
    name: 'stopped',
    sentence: 'A VM that its operator has stopped on its primary is not taken over.',
  };
  let by: string | undefined;
  return {
    ...checker,
    stopped: (node) => {
      if (world.record?.owner === node.name && world.record.peer === null) by = node.name;
    },
    booted: () => {
      by = undefined;
    },
    frameLeft: (node) => {
      if (by === undefined || node.name === by || node.vm === undefined || node.vm.loadedFrom === 0) return;
      world.violate(checker.name, checker.sentence, `${node.name} speaks for the guest that was stopped on ${by}`);
    },
  };
}
