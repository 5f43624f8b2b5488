// `colo sim`: the whole pair in one process, under a virtual clock, from one seed (docs/simulation.md).
//
//   colo sim                      a thousand seeds, on all cores
//   colo sim --seed 7             one seed
//   colo sim --seed 7 --trace     every event of it, one line each
//   colo sim --seed 1 --seeds N   N seeds from 1 on

import { runSeeds } from '../../../sim/world/crowd.ts';
import { outside } from '../../../sim/world/outside.ts';
import { type Outcome, report, runSeed } from '../../../sim/world/run.ts';

export interface SimOptions {
  seed?: number;
  seeds?: number;
  trace: boolean;
  json: boolean;
}

const defaultSeeds = 1000;
const failuresShown = 5;

export async function sim(options: SimOptions): Promise<number> {
  const isOne = options.seeds === undefined && options.seed !== undefined;
  return isOne || options.trace ? one(options) : many(options);
}

async function one(options: SimOptions): Promise<number> {
  const write = (line: string) => void process.stdout.write(`${line}\n`);
  const outcome = await outside(() => runSeed(options.seed ?? 1, options.trace ? { write } : {}));
  if (options.json) write(JSON.stringify(outcome));
  else write(outcome.violation === undefined ? `${describe(outcome)}\nholds` : report(outcome));
  return outcome.violation === undefined ? 0 : 1;
}

function describe(outcome: Outcome): string {
  const { seed, faults, events, virtualMs, answered, checkpoints } = outcome;
  return [
    `seed ${seed}: ${events} events in ${(virtualMs / 1000).toFixed(1)} s of virtual time,`,
    `${checkpoints} checkpoints, ${answered} answers, ${faults.length} faults`,
    ...faults.map((fault) => `\n  ${fault}`),
  ].join(' ');
}

async function many(options: SimOptions): Promise<number> {
  const first = options.seed ?? 1;
  const count = options.seeds ?? defaultSeeds;
  const startedMs = performance.now();
  const failed: Outcome[] = [];
  const sum = { seeds: 0, events: 0, virtualMs: 0, answered: 0, checkpoints: 0, faults: 0 };
  await runSeeds({ first, count }, (outcome) => {
    sum.seeds += 1;
    sum.events += outcome.events;
    sum.virtualMs += outcome.virtualMs;
    sum.answered += outcome.answered;
    sum.checkpoints += outcome.checkpoints;
    sum.faults += outcome.faults.length;
    if (outcome.violation === undefined) return 'go on';
    failed.push(outcome);
    if (!options.json && failed.length <= failuresShown) process.stdout.write(`${report(outcome)}\n\n`);
    return 'go on';
  });
  const seconds = (performance.now() - startedMs) / 1000;
  const violated = failed.map(({ seed, violation }) => ({
    seed,
    checker: violation?.checker,
    detail: violation?.detail,
  }));
  if (options.json) process.stdout.write(`${JSON.stringify({ ...sum, seconds, violated })}\n`);
  else {
    for (const { seed, checker, detail } of violated) process.stdout.write(`seed ${seed}: ${checker}: ${detail}\n`);
    const hours = (sum.virtualMs / 3_600_000).toFixed(1);
    process.stdout.write(
      `${sum.seeds} seeds in ${seconds.toFixed(0)} s (${(sum.seeds / seconds).toFixed(0)} a second): ` +
        `${hours} hours of ` +
        `virtual time, ${sum.faults} faults, ${sum.checkpoints} checkpoints, ${sum.answered} answers; ` +
        `${failed.length} violate a sentence.\n`,
    );
  }
  return failed.length === 0 ? 0 : 1;
}
