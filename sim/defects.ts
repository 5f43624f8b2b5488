// All deliberate defects, by theme. test/simulation/defects.test.ts shows that each is found.

import { checkpointDefects } from './defects/checkpoint.ts';
import type { Defect } from './defects/defect.ts';
import { diskDefects } from './defects/disk.ts';
import { outputDefects } from './defects/output.ts';
import { pairDefects } from './defects/pair.ts';
import { uplinkDefects } from './defects/uplink.ts';

export { type Defect, switchOn } from './defects/defect.ts';

export const defects: readonly Defect[] = [
  ...outputDefects,
  ...uplinkDefects,
  ...checkpointDefects,
  ...pairDefects,
  ...diskDefects,
];
