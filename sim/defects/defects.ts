// All deliberate defects, by theme. test/simulation/defects.test.ts shows that each is found.

import { checkpointDefects } from './checkpoint.ts';
import { clusterDefects } from './cluster.ts';
import type { Defect } from './defect.ts';
import { diskDefects } from './disk.ts';
import { outputDefects } from './output.ts';
import { pairDefects } from './pair.ts';
import { uplinkDefects } from './uplink.ts';

export { type Defect, switchOn } from './defect.ts';

export const defects: readonly Defect[] = [
  ...outputDefects,
  ...uplinkDefects,
  ...checkpointDefects,
  ...pairDefects,
  ...diskDefects,
  ...clusterDefects,
];
