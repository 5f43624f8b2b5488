// An error that nobody catches: of an event of a node, of a promise, or of a start that fails for another reason than
// those that a node knows.

import type { Checker } from '../world/checker.ts';
import type { World } from '../world/world.ts';

export const sentence = 'No fault makes the code of a node throw where nobody catches.';

export function noCrash(world: World): Checker {
  const checker = { name: 'no-crash', sentence };
  return {
    ...checker,
    uncaught: (node, error) => {
      const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
      world.violate(checker.name, sentence, `${node?.name ?? ''} ${text}`);
    },
  };
}
