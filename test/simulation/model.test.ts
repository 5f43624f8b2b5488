// The model of term, lease, commit, apply, goodbye and death holds in every order of events, and its deliberate
// mistakes are found. The decisions in it are the product's own classes (sim/model/step.ts); all budgets are searched
// by test/soak/model.test.ts.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type BudgetName, budgets } from '../../sim/model/budgets.ts';
import { foundBy, type Mistake, mistakes } from '../../sim/model/mistakes.ts';
import { search } from '../../sim/model/search.ts';

const statesMax = 1_000_000;

for (const name of ['one death', 'a partition', 'both come back'] satisfies BudgetName[])
  test(`model, ${name}: one voice, the output rule, a copy survives, and nobody is mute, in every order of events`, () => {
    const { violation, states } = search(budgets[name], { statesMax });
    assert.equal(violation, undefined);
    assert.ok(states > 10_000, `${states} states were searched`);
  });

for (const mistake of Object.keys(mistakes) as Mistake[])
  test(`model: it is found when ${mistakes[mistake]}`, () => {
    const { budget, sentence } = foundBy[mistake];
    const { violation } = search(budgets[budget], { statesMax, mistake });
    assert.ok(violation !== undefined, 'nothing was found');
    assert.ok(violation.sentence.startsWith(sentence), violation.sentence);
    assert.ok(violation.path.length > 0);
  });
