// Switches a deliberate defect on and looks for the first seed in which a checker notices it.

import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { type Defect, switchOn } from '../../sim/defects/defects.ts';
import { drawPlan, type FaultKind } from '../../sim/world/plan.ts';
import { Random } from '../../sim/world/random.ts';
import { runSeed } from '../../sim/world/run.ts';

export interface Found {
  seed: number;
  checker: string;
  /** What finds it in that seed when that checker does not look. */
  other?: string | undefined;
  /** What finds it there without the fault that it needs. */
  otherwise?: string | undefined;
}

/** The first seed that finds the defect, of those of its test or of these; undefined when none of them does. */
export function firstFound(defect: Defect, window: Pick<Defect, 'from' | 'seeds'> = defect): Found | undefined {
  const switchOff = switchOn(defect);
  try {
    const { needs } = defect;
    const { seeds, from = 1 } = window;
    for (let seed = from; seed <= seeds; seed += 1) {
      const checker = runSeed(seed).violation?.checker;
      if (checker !== undefined)
        return {
          seed,
          checker,
          other: runSeed(seed, { without: checker }).violation?.checker,
          ...otherwise(seed, needs),
        };
    }
    return undefined;
  } finally {
    switchOff();
  }
}

function otherwise(seed: number, needs: FaultKind | undefined): Pick<Found, 'otherwise'> {
  if (needs === undefined) return {};
  const drawn = drawPlan(seed, new Random(seed).fork('plan'));
  const plan = { ...drawn, faults: drawn.faults.filter(({ kind }) => kind !== needs) };
  return { otherwise: runSeed(seed, { plan }).violation?.checker };
}

/** The same in a process of its own: what nobody catches, the runner of tests takes for a failure of the test. */
export function firstFoundApart({ name }: Defect, window?: { seeds: number }): Found | undefined {
  const program = join(import.meta.dirname, 'found-main.ts');
  const args = window === undefined ? [] : [String(window.seeds)];
  const { stdout, stderr, status } = spawnSync(process.execPath, [program, name, ...args], { encoding: 'utf8' });
  if (status !== 0) throw new Error(stderr);
  return (JSON.parse(stdout) as { found?: Found }).found;
}
