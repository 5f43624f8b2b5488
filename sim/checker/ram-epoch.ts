// A machine that was loaded with a checkpoint runs from exactly the RAM of that capture, and never from a part of it.

import type { Checker } from '../world/checker.ts';
import type { World } from '../world/world.ts';

const capturesKept = 256;

export const sentence = 'A machine that was loaded with a checkpoint runs from exactly the RAM of that capture.';

export function ramEpoch(world: World): Checker {
  const sums = new Map<number, number>();
  const checker = {
    name: 'ram-epoch',
    sentence,
  };
  return {
    ...checker,
    captured: (vm, captureId) => {
      sums.set(captureId, vm.ramSum);
      sums.delete(captureId - capturesKept);
    },
    resumedFrom: (vm, captureId) => {
      if (sums.get(captureId) === vm.ramSum) return;
      world.violate(
        checker.name,
        checker.sentence,
        `${vm.parts.name} runs with other RAM than capture ${captureId} had`,
      );
    },
  };
}
