// The checkers of the simulation bite: every deliberate defect of sim/defects.ts is found within its number of seeds, and
// the product without it holds on the same seeds. By which checker is part of the promise; and every checker has a defect
// that none of the others notices. docs/simulation.md lists them (docs/defects.ts).

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { sentences } from '../../sim/defects/defect.ts';
import { type Defect, defects, switchOn } from '../../sim/defects.ts';
import { runSeed } from '../../sim/run.ts';

interface Found {
  seed: number;
  checker: string;
  /** What finds it in that seed when that checker does not look. */
  other: string | undefined;
}

/** The first seed that finds the defect; undefined when none of them does. */
function firstFound({ seeds, from = 1 }: Defect): Found | undefined {
  for (let seed = from; seed <= seeds; seed += 1) {
    const checker = runSeed(seed).violation?.checker;
    if (checker !== undefined) return { seed, checker, other: runSeed(seed, { without: checker }).violation?.checker };
  }
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
    assert.equal(found.checker, defect.finds, `seed ${found.seed}`);
    if (defect.alone === true) assert.equal(found.other, undefined, `seed ${found.seed} without ${found.checker}`);
    const clean = await outside(() => runSeed(found.seed).violation);
    assert.equal(clean, undefined, `seed ${found.seed} fails without the defect too`);
  });
}

test('every checker finds a defect, and all but no-crash one that no other finds', () => {
  for (const checker of sentences) {
    const its = defects.filter(({ finds }) => finds === checker);
    assert.ok(its.length > 0, `${checker} finds no defect`);
    assert.ok(checker === 'no-crash' || its.some(({ alone }) => alone === true), `${checker} finds none alone`);
  }
});
