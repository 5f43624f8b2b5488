// Whether two checkouts run the same seeds in the same way: all kept seeds (seeds/) and fresh ones, compared by a hash
// over every line of each trace. For a change that is to change nothing, and to see what a change changes.
//
//   node sim/traces.ts OTHER [SEEDS [FIRST]]      this checkout against OTHER; 200 fresh seeds from 1,000,001 on
//
//   parent ── checkout, seeds ──► child: sim/world/run.ts of that checkout ── seed, hash, events ──► compares
//
// Each checkout has a process of its own, for both bring their own product. The first line that differs is shown,
// of the first seed that does. The plans of kept seeds are those of this checkout.

import { type ChildProcess, fork } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { outside } from './world/outside.ts';
import type { DrawnPlan } from './world/plan.ts';
import type { RunOptions } from './world/world.ts';

interface Wanted {
  seed: number;
  plan?: DrawnPlan;
}

export interface TraceOf {
  seed: number;
  hash: number;
  events: number;
  violated: string | undefined;
}

type Request = { checkout: string; wanted: Wanted[]; lines: boolean };

export const home = resolve(import.meta.dirname, '..');
const freshFrom = 1_000_001;
const freshSeeds = 200;
const differencesShown = 10;

/** With every line of the trace, also those that only a reader wants. */
export function traceOf(run: (seed: number, options: RunOptions) => Ran, { seed, plan }: Wanted): TraceOf {
  const nothing = () => undefined;
  const { traceHash, events, violation } = run(seed, { write: nothing, ...(plan === undefined ? {} : { plan }) });
  return { seed, hash: traceHash, events, violated: violation?.checker };
}

interface Ran {
  traceHash: number;
  events: number;
  violation: { checker: string } | undefined;
}

function keptSeeds(): Wanted[] {
  const folder = join(import.meta.dirname, 'seeds');
  return readdirSync(folder).map((name) => JSON.parse(readFileSync(join(folder, name), 'utf8')) as Wanted);
}

/** Wherever in `sim` that checkout has its run.ts: folders move. */
function runnerOf(checkout: string): string {
  const folder = join(checkout, 'sim');
  const found = readdirSync(folder, { recursive: true, encoding: 'utf8' }).find((name) => /(^|\/)run\.ts$/.test(name));
  if (found === undefined) throw new Error(`${folder} has no run.ts`);
  return pathToFileURL(join(folder, found)).href;
}

// ---- the child ----

function serve(): void {
  process.once('message', ({ checkout, wanted, lines }: Request) => {
    void import(runnerOf(checkout)).then(
      async ({ runSeed }: { runSeed: (seed: number, options: RunOptions) => Ran }) => {
        for (const one of wanted)
          await outside(() => {
            const write = (line: string) => void process.send?.(line);
            if (lines) runSeed(one.seed, { write, ...(one.plan === undefined ? {} : { plan: one.plan }) });
            else process.send?.(traceOf(runSeed, one));
          });
        process.disconnect();
      },
    );
  });
}

// ---- the parent ----

/** In a process of its own. */
export async function ask<T>(request: Request): Promise<T[]> {
  const child: ChildProcess = fork(import.meta.filename, [], { serialization: 'advanced' });
  const { promise, resolve: done, reject } = Promise.withResolvers<T[]>();
  const answers: T[] = [];
  child.on('message', (answer: T) => void answers.push(answer));
  child.once('error', reject);
  child.once('exit', (code) => (code === 0 ? done(answers) : reject(new Error(`${request.checkout}: code ${code}`))));
  child.send(request);
  return promise;
}

const askBoth = <T>(other: string, wanted: Wanted[], lines: boolean): Promise<[T[], T[]]> =>
  Promise.all([ask<T>({ checkout: home, wanted, lines }), ask<T>({ checkout: other, wanted, lines })]);

/** What of these seeds differs between this checkout and the other one; says what, of the first few. */
export async function compare(other: string, wanted: Wanted[]): Promise<Wanted[]> {
  const [ours, theirs] = await askBoth<TraceOf>(other, wanted, false);
  const differs = (index: number) => textOf(ours[index]) !== textOf(theirs[index]);
  const differing = [...wanted.keys()].filter(differs);
  for (const index of differing.slice(0, differencesShown))
    say(`seed ${wanted[index]?.seed}: ${textOf(ours[index])} here, ${textOf(theirs[index])} there`);
  return differing.flatMap((index) => wanted[index] ?? []);
}

async function compareAll(other: string, count: number, first: number): Promise<boolean> {
  const fresh = Array.from({ length: count }, (_, index) => ({ seed: first + index }));
  const wanted = [...keptSeeds(), ...fresh];
  const differing = await compare(other, wanted);
  say(`${wanted.length - differing.length} of ${wanted.length} seeds have equal traces`);
  if (differing[0] !== undefined) await showFirstLine(other, differing[0]);
  return differing.length === 0;
}

async function showFirstLine(other: string, one: Wanted): Promise<void> {
  const [ours, theirs] = await askBoth<string>(other, [one], true);
  const at = ours.findIndex((line, index) => line !== theirs[index]);
  const index = at < 0 ? ours.length : at;
  const before = ours.slice(Math.max(0, index - 3), index).map((line) => `    ${line}`);
  say([`seed ${one.seed}, line ${index + 1}:`, ...before, `  < ${ours[index]}`, `  > ${theirs[index]}`].join('\n'));
}

const textOf = (trace: TraceOf | undefined): string =>
  trace === undefined
    ? 'nothing'
    : `${trace.hash.toString(16)} in ${trace.events} events, ${trace.violated ?? 'holds'}`;

const say = (text: string) => void process.stdout.write(`${text}\n`);

if (import.meta.main) {
  const [, , other, count, first] = process.argv;
  if (process.send !== undefined) serve();
  else if (other === undefined) throw new Error('node sim/traces.ts OTHER [SEEDS [FIRST]]');
  else
    process.exitCode = (await compareAll(resolve(other), Number(count ?? freshSeeds), Number(first ?? freshFrom)))
      ? 0
      : 1;
}
