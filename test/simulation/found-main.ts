// `node found-main.ts DEFECT [SEEDS]`: firstFound in a process of its own, as JSON, in the seeds of the defect's test
// or from seed 1 to SEEDS.

import { defects } from '../../sim/defects/defects.ts';
import { outside } from '../../sim/world/outside.ts';
import { firstFound } from './found.ts';

const [, , name, seeds] = process.argv;
const defect = defects.find((one) => one.name === name);
if (defect === undefined) throw new Error(`there is no defect ${name}`);
const window = seeds === undefined ? defect : { seeds: Number(seeds) };
process.stdout.write(JSON.stringify({ found: await outside(() => firstFound(defect, window)) }));
