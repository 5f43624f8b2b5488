// The model's searches from the command line: one line for each budget, the path where a sentence is violated.
//
//   node sim/model/main.ts [BUDGET] [MISTAKE]

import { type BudgetName, budgets } from './budgets.ts';
import type { Mistake } from './mistakes.ts';
import { search } from './search.ts';

const [wanted, mistake] = process.argv.slice(2);
for (const name of Object.keys(budgets) as BudgetName[]) {
  if (wanted !== undefined && wanted !== '' && wanted !== name) continue;
  const startedMs = performance.now();
  const { states, transitions, depth, violation } = search(budgets[name], {
    statesMax: 20_000_000,
    ...(mistake === undefined ? {} : { mistake: mistake as Mistake }),
  });
  const seconds = ((performance.now() - startedMs) / 1000).toFixed(1);
  process.stdout.write(`${name}: ${states} states, ${transitions} steps, depth ${depth}, ${seconds} s\n`);
  if (violation !== undefined) process.stdout.write(`  ${violation.sentence}\n    ${violation.path.join('\n    ')}\n`);
}
