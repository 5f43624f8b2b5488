// Runs seeds, and says of each what came of it.

import { checkers as all } from './checkers.ts';
import { faultText } from './plan.ts';
import { type RunOptions, type Violation, World } from './world.ts';

export const checkers = all.map(({ make }) => make);

export interface Outcome {
  seed: number;
  violation: Violation | undefined;
  /** Equal for equal runs. */
  traceHash: number;
  events: number;
  virtualMs: number;
  answered: number;
  checkpoints: number;
  boots: number;
  faults: string[];
  last: string[];
}

const linesShown = 40;

/** One world at a time: an error that nobody handles belongs to it. */
let current: World | undefined;

export function runSeed(seed: number, options: RunOptions = {}): Outcome {
  watchRejections();
  const world = new World(seed, checkers, options);
  current = world;
  world.run();
  current = undefined;
  return {
    seed,
    violation: world.violation,
    traceHash: world.trace.hash,
    events: world.schedule.count,
    virtualMs: world.schedule.now,
    answered: world.clients.reduce((sum, { answered }) => sum + answered, 0),
    checkpoints: world.captureIds.next - 1,
    boots: world.boots,
    faults: world.plan.faults.map(faultText),
    last: world.trace.last(linesShown),
  };
}

let watching = false;

function watchRejections(): void {
  if (watching) return;
  watching = true;
  process.on('unhandledRejection', (error) => {
    if (current === undefined) throw error;
    current.crashed(undefined, error);
  });
}

/** A failing seed, for people. */
export function report(outcome: Outcome): string {
  const { seed, violation, last, faults } = outcome;
  if (violation === undefined) return `seed ${seed}: holds`;
  return [
    ...last,
    '',
    `seed ${seed} at ${violation.atMs.toFixed(3)} ms violates ${violation.checker}:`,
    `  "${violation.sentence}"`,
    `  ${violation.detail}`,
    ...faults.map((fault) => `  fault: ${fault}`),
    `Again: colo sim --seed ${seed} --trace`,
  ].join('\n');
}
