// The checkers of the simulation bite: every deliberate defect of sim/defects/defects.ts is found within its number of
// seeds, and the product without it holds on the same seeds. By which checker is part of the promise; and every checker
// has a defect that none of the others notices. docs/simulation.md lists them (docs/defects.ts).

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { defects } from '../../sim/defects/defects.ts';
import { checkers } from '../../sim/world/checkers.ts';
import { outside } from '../../sim/world/outside.ts';
import { runSeed } from '../../sim/world/run.ts';
import { firstFound, firstFoundApart } from './found.ts';

for (const defect of defects) {
  test(`found within ${defect.seeds} seeds: ${defect.name}. ${defect.mistake}`, async () => {
    const found = defect.finds === 'no-crash' ? firstFoundApart(defect) : await outside(() => firstFound(defect));
    assert.ok(found !== undefined, `no checker noticed: ${defect.mistake}`);
    assert.equal(found.checker, defect.finds, `seed ${found.seed}`);
    if (defect.alone === true) assert.equal(found.other, undefined, `seed ${found.seed} without ${found.checker}`);
    if (defect.needs !== undefined) assert.equal(found.otherwise, undefined, `seed ${found.seed}, no ${defect.needs}`);
    const clean = await outside(() => runSeed(found.seed).violation);
    assert.equal(clean, undefined, `seed ${found.seed} fails without the defect too`);
  });
}

test('every checker finds a defect, and all but no-crash one that no other finds', () => {
  for (const { name: checker } of checkers) {
    const its = defects.filter(({ finds }) => finds === checker);
    assert.ok(its.length > 0, `${checker} finds no defect`);
    assert.ok(checker === 'no-crash' || its.some(({ alone }) => alone === true), `${checker} finds none alone`);
  }
});
