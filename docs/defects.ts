// Writes the table of deliberate defects into docs/simulation.md, between its two marks.
//
//   node docs/defects.ts          writes the table
//   docs/defects.test.ts          fails when the table is not what this would write
//
// That each defect is found by that checker within those seeds is shown by test/simulation/defects.test.ts.

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Defect, defects } from '../sim/defects.ts';

export const simulationDocument = join(import.meta.dirname, 'simulation.md');

const begin = '<!-- defects: made by node docs/defects.ts -->\n';
const end = '<!-- end of defects -->';

const rowOf = ({ name, mistake, seeds, from = 1, finds, alone }: Defect) =>
  `| ${name} | ${mistake} | ${finds}${alone === true ? ', alone' : ''} | ${from} to ${seeds} |`;

/** The document with the table as it must be. */
export function withTable(text: string): string {
  const from = text.indexOf(begin);
  const to = text.indexOf(end);
  if (from < 0 || to < from) throw new Error('docs/simulation.md has no marks for its table of defects');
  const table = ['| defect | mistake | found by | in seeds |', '|---|---|---|---|', ...defects.map(rowOf)].join('\n');
  return `${text.slice(0, from + begin.length)}\n${table}\n\n${text.slice(to)}`;
}

if (import.meta.main) writeFileSync(simulationDocument, withTable(readFileSync(simulationDocument, 'utf8')));
