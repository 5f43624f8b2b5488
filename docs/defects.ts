// Writes the tables of checkers and of deliberate defects into docs/simulation.md, each between its two marks.
//
//   node docs/defects.ts          writes the tables
//   docs/defects.test.ts          fails when they are not what this would write
//
// That each defect is found by that checker within those seeds is shown by test/simulation/defects.test.ts.

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Defect, defects } from '../sim/defects/defects.ts';
import { firstSeeds } from '../sim/defects/first.ts';
import { checkers } from '../sim/world/checkers.ts';

export const simulationDocument = join(import.meta.dirname, 'simulation.md');

function rowOf({ name, mistake, seeds, from = 1, finds, alone }: Defect): string {
  const first = firstSeeds[name];
  if (first === undefined) throw new Error(`sim/defects/first.ts does not say when ${name} is found from seed 1 on`);
  return `| ${name} | ${mistake} | ${finds}${alone === true ? ', alone' : ''} | ${from} to ${seeds} | ${first} |`;
}

/** The document with the tables as they must be. */
export function withTables(text: string): string {
  const sentences = checkers.map(({ name, sentence }) => `| ${name} | ${sentence} |`);
  const withSentences = withTable(text, 'sentences', ['| checker | sentence |', '|---|---|', ...sentences]);
  const head = ['| defect | mistake | found by | in seeds | first |', '|---|---|---|---|---|'];
  return withTable(withSentences, 'defects', [...head, ...defects.map(rowOf)]);
}

function withTable(text: string, what: string, lines: readonly string[]): string {
  const begin = `<!-- ${what}: made by node docs/defects.ts -->\n`;
  const from = text.indexOf(begin);
  const to = text.indexOf(`<!-- end of ${what} -->`);
  if (from < 0 || to < from) throw new Error(`docs/simulation.md has no marks for its table of ${what}`);
  return `${text.slice(0, from + begin.length)}\n${lines.join('\n')}\n\n${text.slice(to)}`;
}

if (import.meta.main) writeFileSync(simulationDocument, withTables(readFileSync(simulationDocument, 'utf8')));
