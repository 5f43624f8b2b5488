// `node found-main.ts DEFECT`: firstFound in a process of its own, as JSON, for a defect that makes the product throw where
// nobody catches.

import { defects } from '../../sim/defects.ts';
import { outside } from '../../sim/outside.ts';
import { firstFound } from './found.ts';

const defect = defects.find(({ name }) => name === process.argv[2]);
if (defect === undefined) throw new Error(`there is no defect ${process.argv[2]}`);
process.stdout.write(JSON.stringify({ found: await outside(() => firstFound(defect)) }));
