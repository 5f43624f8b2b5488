// `colo test mutants`: applies one small mistake after the other (mutants.ts) to a copy of this checkout, and says what notices
// it. A mutant that nothing notices is a promise that no test holds.
//
//   mutant ─► unit tests of its folder ─► tests of the simulation ─► seeds ─► all other unit tests     the first that fails kills it
//
// The code without a mistake goes first through all of it: where that fails, a mutant that fails proves nothing. A stage ends with
// its first failure, whose test or seed is named: whoever reads the report can see whether it is about the mistake.
//
// The copy has hard links to our files; only the mutated one is written, as a file of its own. It lies in a temporary folder, which
// is removed at the end. A stage that takes longer than its time counts as noticed: the mutant hangs it.

import { type ChildProcess, spawn } from 'node:child_process';
import { cpSync, linkSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { type Mutant, mutants } from './mutants.ts';

export interface MutantResult {
  name: string;
  file: string;
  /** Which stage noticed it, and which test or seed in it; undefined: none did. */
  killedBy: string | undefined;
  test: string | undefined;
  seconds: number;
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

/** Runs the mutants one after the other; one that makes even the unmutated code fail would prove nothing, so that is run first. */
export async function runMutants(options: MutantOptions = {}): Promise<MutantResult[]> {
  const wanted = mutants.filter(({ name, file }) => `${name} ${file}`.includes(options.only ?? ''));
  const folder = mkdtempSync(join(tmpdir(), 'colo-mutants-'));
  try {
    for (const name of copied) cpSync(join(home, name), join(folder, name), { recursive: true, filter: link(folder) });
    symlinkSync(join(home, 'node_modules'), join(folder, 'node_modules'));
    if (wanted.length > 0) await proveSound(folder, options);
    const results: MutantResult[] = [];
    const isOver = () => options.signal?.aborted === true;
    for (const mutant of wanted) {
      if (isOver()) break;
      const result = await runMutant(folder, mutant, options);
      // What Ctrl-C has ended is no finding.
      if (isOver()) break;
      results.push(result);
      options.onResult?.(result, results.length, wanted.length);
    }
    return results;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

async function proveSound(folder: string, options: MutantOptions): Promise<void> {
  for (const stage of await stages(folder, undefined, options.seeds ?? 500)) {
    if (options.signal?.aborted === true) return;
    const failure = await failureOf(folder, stage, options.signal);
    if (failure !== undefined) throw new Error(`without any mistake ${stage.name} fail: ${failure}`);
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

async function runMutant(folder: string, mutant: Mutant, options: MutantOptions): Promise<MutantResult> {
  const startedMs = performance.now();
  const path = join(folder, mutant.file);
  const original = readFileSync(path, 'utf8');
  const write = (text: string) => {
    rmSync(path);
    writeFileSync(path, text);
  };
  write(original.replace(mutant.find, () => mutant.replace));
  try {
    let killedBy: string | undefined;
    let test: string | undefined;
    for (const stage of await stages(folder, mutant, options.seeds ?? 500)) {
      if (killedBy !== undefined || options.signal?.aborted === true) break;
      test = await failureOf(folder, stage, options.signal);
      if (test !== undefined) killedBy = stage.name;
    }
    return { name: mutant.name, file: mutant.file, killedBy, test, seconds: (performance.now() - startedMs) / 1000 };
  } finally {
    write(original);
  }
}

async function stages(folder: string, mutant: Mutant | undefined, seeds: number): Promise<Stage[]> {
  const own = mutant?.file.split('/').slice(0, 2).join('/');
  const tests = async (root: string) => {
    const names = await readdir(join(folder, root), { recursive: true });
    return names.filter((name) => name.endsWith('.test.ts')).map((name) => join(root, name));
  };
  const test = (name: string, files: string[]): Stage => ({ name, args: ['--test', '--test-concurrency=2', ...files] });
  const near = own === undefined ? [] : await tests(own);
  const far = (await tests('src')).filter((name) => !near.includes(name));
  return [
    ...(near.length === 0 ? [] : [test(`unit tests of ${own ?? ''}`, near)]),
    test('tests of the simulation', await tests('sim')),
    { name: `${seeds} seeds`, args: ['src/cli/main.ts', 'sim', '--seed', '1', '--seeds', String(seeds)] },
    test('unit tests', far),
  ];
}

/** What a test runner or the simulation says of a failure: `✖ NAME (12 ms)`, `seed 7 violates ...`. */
const failureLine = /^\s*✖ (?!failing tests:)(.*?)(?: \([\d.]+ms\))?$|^(seed \d+.*)$/m;

/** Undefined when it passes. It is ended at the first failure that it tells. */
async function failureOf(folder: string, { args }: Stage, signal: AbortSignal | undefined): Promise<string | undefined> {
  const child = spawn(process.execPath, [...nodeArgs, ...args], {
    cwd: folder,
    detached: true,
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  const end = () => endGroup(child);
  let failure: string | undefined;
  const timer = setTimeout(() => {
    failure ??= `it takes longer than ${stageTimeoutMs / 1000} s`;
    end();
  }, stageTimeoutMs);
  signal?.addEventListener('abort', end);
  createInterface({ input: child.stdout }).on('line', (line) => {
    const said = failureLine.exec(line);
    if (said === null || failure !== undefined) return;
    failure = said[1] ?? said[2];
    end();
  });
  try {
    return await new Promise<string | undefined>((done) => {
      child.once('error', (error) => done(failure ?? error.message));
      child.once('close', (code) => done(code === 0 ? undefined : (failure ?? `exit code ${code}`)));
    });
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', end);
    end();
  }
}

function endGroup(child: ChildProcess): void {
  try {
    if (child.pid !== undefined) process.kill(-child.pid, 'SIGKILL');
  } catch {
    // It is gone.
  }
}
