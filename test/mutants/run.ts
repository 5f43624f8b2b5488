// `colo test mutants`: applies one small mistake after the other (mutants.ts) to a copy of this checkout, and says what
// notices it. A mutant that nothing notices is a promise that no test holds.
//
//   mutant ─► unit tests of its folder ─► seeds ─► tests of the simulation ─► all other unit tests
//
// The first that fails kills it. Its test file, or its seed, is then run without the mistake: where that fails too, as
// a test may on a busy machine, it is no finding, and the rest of the stage is run again without it. So whatever is
// named as noticing has noticed.
//
// The copy has hard links to our files; only the mutated one is written, as a file of its own. It lies in a temporary
// folder, which is removed at the end. A stage that takes longer than its time counts as noticed: the mutant hangs it.

import { type ChildProcess, spawn } from 'node:child_process';
import { cpSync, linkSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, relative, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { type Mutant, mutants } from './mutants.ts';

export interface MutantResult {
  name: string;
  file: string;
  /** Which stage noticed it, and which test or seed in it; undefined: none did. */
  killedBy: string | undefined;
  test: string | undefined;
}

export interface MutantOptions {
  /** Only mutants whose name or file contains this. */
  only?: string;
  seeds?: number;
  signal?: AbortSignal;
  onResult?: (result: MutantResult, done: number, total: number) => void;
}

interface Stage {
  name: string;
  args: string[];
  /** Test files, where it is a run of tests. */
  files?: string[];
}

interface Failure {
  /** Which test or seed, for people. */
  test: string;
  /** The part of its stage that shows it. */
  again: Stage;
}

const home = resolve(import.meta.dirname, '../..');
const copied = [
  'src',
  'sim',
  'test',
  'bench',
  'docs',
  'guest',
  'native',
  'examples',
  'deploy',
  'package.json',
  'tsconfig.json',
];
const stageTimeoutMs = 600_000;
const nodeArgs = ['--disable-warning=ExperimentalWarning'];

/** Runs the mutants one after the other. */
export async function runMutants(options: MutantOptions = {}): Promise<MutantResult[]> {
  const wanted = mutants.filter(({ name, file }) => `${name} ${file}`.includes(options.only ?? ''));
  const folder = mkdtempSync(join(tmpdir(), 'colo-mutants-'));
  try {
    for (const name of copied) cpSync(join(home, name), join(folder, name), { recursive: true, filter: link(folder) });
    symlinkSync(join(home, 'node_modules'), join(folder, 'node_modules'));
    return await inTurns(folder, wanted, options);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Files become hard links, folders are made: a filter that has done the copying already. */
function link(folder: string) {
  return (from: string, to: string): boolean => {
    if (!/\.[a-z0-9]+$/i.test(from) || !to.startsWith(folder)) return true;
    mkdirSync(dirname(to), { recursive: true });
    try {
      linkSync(from, to);
      return false;
    } catch {
      return true;
    }
  };
}

/**
 * Each stage with all that are left: what is quickly noticed is told first, and what is left is what a run is about.
 */
async function inTurns(folder: string, wanted: readonly Mutant[], options: MutantOptions): Promise<MutantResult[]> {
  const results: MutantResult[] = [];
  const stagesOf = await Promise.all(wanted.map((mutant) => stages(folder, mutant, options.seeds ?? 500)));
  const left = new Set(wanted);
  const tell = (result: MutantResult) => {
    results.push(result);
    options.onResult?.(result, results.length, wanted.length);
  };
  const isOver = () => options.signal?.aborted === true;
  for (let turn = 0; left.size > 0; turn += 1)
    for (const [index, mutant] of wanted.entries()) {
      if (isOver()) return results;
      if (!left.has(mutant)) continue;
      const stage = stagesOf[index]?.[turn];
      const { name, file } = mutant;
      const test = stage === undefined ? undefined : await withMistake(folder, mutant, stage, options.signal);
      // What Ctrl-C has ended is no finding.
      if (isOver() || (test === undefined && stage !== undefined)) continue;
      left.delete(mutant);
      tell({ name, file, killedBy: stage?.name, test });
    }
  return results;
}

async function withMistake(
  folder: string,
  mutant: Mutant,
  stage: Stage,
  signal: AbortSignal | undefined,
): Promise<string | undefined> {
  const path = join(folder, mutant.file);
  const original = readFileSync(path, 'utf8');
  const write = (text: string) => {
    rmSync(path);
    writeFileSync(path, text);
  };
  const during = async <T>(work: () => Promise<T>): Promise<T> => {
    write(original.replace(mutant.find, () => mutant.replace));
    try {
      return await work();
    } finally {
      write(original);
    }
  };
  return await noticed(folder, stage, { withMistake: during, signal });
}

/** Which test or seed of a stage fails with the mistake, and does not fail without it. */
async function noticed(
  folder: string,
  stage: Stage,
  { withMistake, signal }: { withMistake: <T>(work: () => Promise<T>) => Promise<T>; signal: AbortSignal | undefined },
): Promise<string | undefined> {
  const isOver = () => signal?.aborted === true;
  for (let left: Stage | undefined = stage; left !== undefined && !isOver(); ) {
    const tried: Stage = left;
    const failure = await withMistake(() => failureOf(folder, tried, signal));
    // What Ctrl-C has ended is no finding, and is not run again.
    if (failure === undefined || isOver()) return undefined;
    if ((await failureOf(folder, failure.again, signal)) === undefined) return failure.test;
    left = withoutFiles(tried, failure.again);
  }
  return undefined;
}

/** The rest of a stage when one file of it has failed without any mistake; undefined: nothing is left. */
function withoutFiles(stage: Stage, failed: Stage): Stage | undefined {
  const files = stage.files?.filter((file) => failed.files?.includes(file) !== true) ?? [];
  return files.length === 0 || files.length === stage.files?.length ? undefined : { ...stage, files };
}

const testArgs = [join(import.meta.dirname, 'tests.ts')];

async function stages(folder: string, mutant: Mutant, seeds: number): Promise<Stage[]> {
  const own = mutant.file.split('/').slice(0, 2).join('/');
  const tests = async (root: string) => {
    const names = await readdir(join(folder, root), { recursive: true });
    return names.filter((name) => name.endsWith('.test.ts') && !measures.test(name)).map((name) => join(root, name));
  };
  const test = (name: string, files: string[]): Stage => ({ name, args: testArgs, files });
  const near = await tests(own);
  const far = (await tests('src')).filter((name) => !near.includes(name));
  return [
    ...(near.length === 0 ? [] : [test(`unit tests of ${own}`, near)]),
    { name: `${seeds} seeds`, args: [...simArgs, '--seed', '1', '--seeds', String(seeds)] },
    test('tests of the simulation', await tests('sim')),
    test('unit tests', far),
  ];
}

/** They measure what something costs, which no mistake of these is about, and take long. */
const measures = /(^|\/)cost\.test\.ts$/;

const simArgs = ['src/cli/main.ts', 'sim'];

/** Undefined when it passes. It is ended at the first failure that it tells. */
async function failureOf(folder: string, stage: Stage, signal: AbortSignal | undefined): Promise<Failure | undefined> {
  const args = [...nodeArgs, ...stage.args, ...(stage.files ?? [])];
  const child = spawn(process.execPath, args, { cwd: folder, detached: true, stdio: ['ignore', 'pipe', 'ignore'] });
  const end = () => endGroup(child);
  let failure: Failure | undefined;
  const timer = setTimeout(() => {
    failure ??= { test: `it takes longer than ${stageTimeoutMs / 1000} s`, again: stage };
    end();
  }, stageTimeoutMs);
  signal?.addEventListener('abort', end);
  createInterface({ input: child.stdout }).on('line', (line) => {
    failure ??= failureIn(line, folder);
    if (failure !== undefined) end();
  });
  try {
    return await new Promise<Failure | undefined>((done) => {
      child.once('error', (error) => done(failure ?? { test: error.message, again: stage }));
      child.once('close', (code) =>
        done(code === 0 ? undefined : (failure ?? { test: `exit code ${code}`, again: stage })),
      );
    });
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', end);
    end();
  }
}

/** What the tests (tests.ts) or the simulation (`seed 7 at 5.001 ms violates ...`) says of a failure. */
function failureIn(line: string, folder: string): Failure | undefined {
  const seed = /^seed (\d+) at [\d.]+ ms violates (.*?):?$/.exec(line);
  if (seed !== null) {
    const [, number = '', checker = ''] = seed;
    return { test: `seed ${number}, ${checker}`, again: { name: line, args: [...simArgs, '--seed', number] } };
  }
  if (!line.startsWith('["')) return undefined;
  const [path = '', name = ''] = JSON.parse(line) as string[];
  const file = relative(folder, path);
  return { test: `${file} "${name}"`, again: { name: file, args: testArgs, files: [file] } };
}

function endGroup(child: ChildProcess): void {
  try {
    if (child.pid !== undefined) process.kill(-child.pid, 'SIGKILL');
  } catch {
    // It is gone.
  }
}
