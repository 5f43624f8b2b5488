// A node that is starved of its processor now and then, for longer and longer, is given time; one that stands still out
// of the blue for as long is not. Whole nodes, under the clock of the simulation.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { outside } from './world/outside.ts';
import { drawPlan, type Fault } from './world/plan.ts';
import { Random } from './world/random.ts';
import { report, runSeed } from './world/run.ts';

/**
 * Runs a guest whose secondary, or primary, stands still for these times; resolves to how often silence was suspected.
 */
function suspicions(seed: number, on: Fault['on'], stillMs: readonly number[]): Promise<number> {
  const drawn = drawPlan(seed, new Random(seed));
  const faults = stillMs.map(
    (forMs, index): Fault => ({
      ...{ kind: 'pause-node', on, forMs, choice: 0 },
      when: { atMs: 3000 + index * 3000 },
    }),
  );
  const protect = { ...drawn.protect, mode: 'colo' as const };
  const arbiter = { ...drawn.arbiter, lose: 0 };
  const plan = { ...drawn, faults, protect, arbiter, disk: undefined, healMs: 3000 + stillMs.length * 3000 };
  return outside(() => {
    let count = 0;
    const write = (line: string) => {
      if (line.includes('"on":"silence"')) count += 1;
    };
    const outcome = runSeed(seed, { plan, write });
    assert.equal(outcome.violation, undefined, report(outcome));
    return count;
  });
}

const seeds = [1, 2, 3, 4, 5, 6, 7, 8];

for (const on of ['secondary', 'primary'] as const)
  test(`a ${on} that stands still for longer and longer is not given up`, async () => {
    for (const seed of seeds) assert.equal(await suspicions(seed, on, [250, 380, 600, 900]), 0, `seed ${seed}`);
  });

test('one that stands still for as long out of the blue is given up', async () => {
  for (const seed of seeds) assert.ok((await suspicions(seed, 'secondary', [900])) > 0, `seed ${seed}`);
});
