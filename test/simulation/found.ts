// Switches a deliberate defect on and looks for the first seed in which a checker notices it.

import { type Defect, switchOn } from '../../sim/defects.ts';
import { runSeed } from '../../sim/run.ts';

export interface Found {
  seed: number;
  checker: string;
  /** What finds it in that seed when that checker does not look. */
  other?: string | undefined;
}

/** The first seed that finds the defect; undefined when none of them does. */
export function firstFound(defect: Defect): Found | undefined {
  const switchOff = switchOn(defect);
  try {
    const { seeds, from = 1 } = defect;
    for (let seed = from; seed <= seeds; seed += 1) {
      const checker = runSeed(seed).violation?.checker;
      if (checker !== undefined)
        return { seed, checker, other: runSeed(seed, { without: checker }).violation?.checker };
    }
    return undefined;
  } finally {
    switchOff();
  }
}
