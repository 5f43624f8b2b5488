// Everything that waits is bounded, and far below its limit while clients ask one thing at a time.

import type { Checker } from '../checker.ts';
import type { SimNode } from '../node.ts';
import type { World } from '../world.ts';

/** Far beyond what two clients can cause, far below the limits of the product: what grows shows. */
const framesMax = 3000;

export const sentence = 'Everything that waits is bounded, and what leaves gives its place back.';

export function bounds(world: World): Checker {
  const checker = {
    name: 'bounds',
    sentence,
  };
  const check = (node: SimNode, what: string, count: number): void => {
    if (count > framesMax || count < 0) world.violate(checker.name, checker.sentence, `${node.name}: ${count} ${what}`);
  };
  return {
    ...checker,
    endless: (events) => world.violate(checker.name, sentence, `a run has more than ${events} events`),
    polled: () => {
      for (const node of world.nodes) {
        const primary = node.node?.primary?.proxy.counters;
        if (primary !== undefined) {
          check(node, 'frames are held', primary.heldFrames);
          check(node, 'bytes are held', Math.min(0, primary.heldBytes));
          check(node, 'connections are known', primary.connections);
        }
        const secondary = node.node?.secondary?.proxy.counters;
        if (secondary === undefined) continue;
        check(node, 'items are in the log', secondary.logItems);
        check(node, 'frames are unconfirmed', secondary.unconfirmedFrames);
      }
    },
  };
}
