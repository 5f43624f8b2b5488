// Every queue and buffer of a node (sim/world/queues.ts) stays within its own limit, which some plans lower
// (sim/world/low-limits.ts). What gives its place back never gives back more. And where the limits are those of the
// product, two clients that ask one thing at a time fill nothing: what grows shows long before its limit.

import type { Checker } from '../world/checker.ts';
import { queuesOf } from '../world/queues.ts';
import type { World } from '../world/world.ts';

/** Far beyond what two clients can cause, in anything that is counted by the piece. */
const piecesMax = 3000;

export const sentence = 'Everything that waits is bounded, and what leaves gives its place back.';

export function bounds(world: World): Checker {
  const checker = { name: 'bounds', sentence };
  return {
    ...checker,
    endless: (events) => world.violate(checker.name, sentence, `a run has more than ${events} events`),
    polled: () => {
      for (const node of world.nodes)
        for (const { what, size, max } of queuesOf(node)) {
          const isPieces = !what.startsWith('bytes');
          if (size >= 0 && size <= max && !(isPieces && size > piecesMax)) continue;
          world.violate(checker.name, sentence, `${node.name}: ${size} ${what}, at most ${max} may`);
        }
    },
  };
}
