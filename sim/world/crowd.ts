// Many seeds on all cores: one child process for each, because node's tick callback (schedule.ts) and the switched-on
// defects belong to a process. Seeds are handed out in small portions, so that a slow one holds nobody up.
//
//    parent ── seed, count ──► child ── one outcome after another ──► parent

import { type ChildProcess, fork } from 'node:child_process';
import { availableParallelism } from 'node:os';
import type { Outcome } from './run.ts';

export interface Portion {
  first: number;
  count: number;
}

const portionSeeds = 20;

/** Runs `count` seeds from `first` on; `each` hears of every outcome, in no particular order. Stops when it says so. */
export async function runSeeds(
  options: { first: number; count: number; processes?: number },
  each: (outcome: Outcome) => 'go on' | 'stop',
): Promise<void> {
  const processes = Math.min(options.processes ?? availableParallelism(), Math.ceil(options.count / portionSeeds));
  let next = options.first;
  const end = options.first + options.count;
  const portion = (): Portion | undefined => {
    if (next >= end) return undefined;
    const first = next;
    next = Math.min(end, next + portionSeeds);
    return { first, count: next - first };
  };
  const stop = () => {
    next = end;
  };
  await Promise.all(Array.from({ length: processes }, () => serve(portion, each, stop)));
}

function serve(
  portion: () => Portion | undefined,
  each: (outcome: Outcome) => 'go on' | 'stop',
  stop: () => void,
): Promise<void> {
  const child: ChildProcess = fork(new URL('worker.ts', import.meta.url), { serialization: 'advanced' });
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const give = () => {
    const work = portion();
    if (work === undefined) child.disconnect();
    else child.send(work);
  };
  child.on('message', (outcomes: Outcome[]) => {
    for (const outcome of outcomes) if (each(outcome) === 'stop') stop();
    give();
  });
  child.once('error', reject);
  child.once('exit', (code) => {
    if (code === 0) resolve();
    else reject(new Error(`a process of the simulation ended with code ${code}`));
  });
  give();
  return promise;
}
