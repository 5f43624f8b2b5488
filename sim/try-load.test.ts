// remus: a secondary that could not load what it holds is found out by its primary, and not by a takeover. Whole nodes,
// under the clock of the simulation.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { outside } from './world/outside.ts';
import { drawPlan, type Fault } from './world/plan.ts';
import { Random } from './world/random.ts';
import { report, runSeed } from './world/run.ts';

/** The lines of a run in which the secondary's next load of a state fails, long after it was protected first. */
function linesOf(seed: number, tryLoad: number): Promise<string[]> {
  const drawn = drawPlan(seed, new Random(seed));
  const fault: Fault = { kind: 'fail-load', on: 'secondary', forMs: 0, choice: 0, when: { atMs: 2000 } };
  const protect = { ...drawn.protect, mode: 'remus' as const, tryLoad };
  const arbiter = { ...drawn.arbiter, lose: 0 };
  const plan = { ...drawn, faults: [fault], protect, arbiter, disk: undefined, healMs: 3000 };
  return outside(() => {
    const lines: string[] = [];
    const outcome = runSeed(seed, { plan, write: (line) => void lines.push(line) });
    assert.equal(outcome.violation, undefined, report(outcome));
    return lines;
  });
}

const isFound = (line: string) => line.includes('this node holds no runnable copy') && line.includes('load');

test('remus: a state that does not load costs the secondary while its primary lives, and the VM is protected anew', async () => {
  for (const seed of [1, 2, 3]) {
    const lines = await linesOf(seed, 300);
    const at = lines.findIndex(isFound);
    assert.ok(at > 0, `seed ${seed}`);
    assert.ok(
      lines.slice(at).some((line) => line.includes('"to":"protected","on":"staged"')),
      `seed ${seed}: it is protected again`,
    );
    const without = await linesOf(seed, 3_600_000);
    assert.ok(!without.some(isFound), `seed ${seed}: nobody looked`);
  }
});
