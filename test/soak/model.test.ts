// Every budget of the model, searched completely (sim/model/budgets.ts): minutes. `./colo test` searches the smaller
// ones.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type BudgetName, budgets } from '../../sim/model/budgets.ts';
import { search } from '../../sim/model/search.ts';

for (const name of Object.keys(budgets) as BudgetName[])
  test(`model, ${name}: its four sentences hold in every order of events`, (context) => {
    const { violation, states, transitions, depth } = search(budgets[name], { statesMax: 20_000_000 });
    context.diagnostic(`${states} states, ${transitions} steps, depth ${depth}`);
    assert.equal(violation, undefined);
  });
