// Five hundred seeds of the simulation hold (sim/; docs/simulation.md).

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { runSeeds } from '../../sim/world/crowd.ts';
import { report } from '../../sim/world/run.ts';

test('five hundred seeds hold', async () => {
  const failures: string[] = [];
  let count = 0;
  await runSeeds({ first: 10_001, count: 500 }, (outcome) => {
    count += 1;
    if (outcome.violation !== undefined) failures.push(report(outcome));
    return failures.length < 3 ? 'go on' : 'stop';
  });
  assert.deepEqual(failures, []);
  assert.equal(count, 500);
});
