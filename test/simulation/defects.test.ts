// The checkers of the simulation bite: every deliberate defect of sim/defects.ts is found within its number of seeds, and
// the product without it holds on the same seeds.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Defect, defects, switchOn } from '../../sim/defects.ts';
import { runSeed } from '../../sim/run.ts';

/** The first seed that finds the defect; undefined when none of them does. */
function firstFound({ seeds, from = 1 }: Defect): number | undefined {
  for (let seed = from; seed <= seeds; seed += 1) if (runSeed(seed).violation !== undefined) return seed;
  return undefined;
}

function outside<T>(work: () => T): Promise<T> {
  return new Promise((resolve, reject) => {
    setImmediate(() => {
      try {
        resolve(work());
      } catch (error) {
        reject(error instanceof Error ? error : new Error(String(error)));
      }
    });
  });
}

for (const defect of defects) {
  test(`found within ${defect.seeds} seeds: ${defect.name}. ${defect.mistake}`, async () => {
    const found = await outside(() => {
      const switchOff = switchOn(defect);
      try {
        return firstFound(defect);
      } finally {
        switchOff();
      }
    });
    assert.ok(found !== undefined, `no checker noticed: ${defect.mistake}`);
    const clean = await outside(() => runSeed(found).violation);
    assert.equal(clean, undefined, `seed ${found} fails without the defect too`);
  });
}
