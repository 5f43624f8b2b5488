// A child of crowd.ts: runs portions of seeds and says what came of them.

import type { Portion } from './crowd.ts';
import { runSeed } from './run.ts';

process.on('message', ({ first, count }: Portion) => {
  const outcomes = Array.from({ length: count }, (_, index) => runSeed(first + index));
  // Only a failing seed's lines are of use to anybody.
  for (const outcome of outcomes) if (outcome.violation === undefined) outcome.last = [];
  process.send?.(outcomes);
});
