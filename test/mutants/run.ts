// `colo test mutants`: applies one small mistake after the other (mutants.ts) to a copy of this checkout, and says what
// notices it. A mutant that nothing notices is a promise that no test holds.
//
//   mutant ─► unit tests of its folder ─► all unit tests ─► tests of the simulation ─► seeds
//
// The first that fails kills it.
//
// The copy has hard links to our files; only the mutated one is written, as a file of its own. It lies in a temporary
// folder, which is removed at the end. A stage that takes longer than its time counts as noticed: the mutant hangs it.

import { type ChildProcess, spawn } from 'node:child_process';
import { cpSync, linkSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { type Mutant, mutants } from './mutants.ts';

export interface MutantResult {
  name: string;
  file: string;
  /** Which stage noticed it; undefined: none did. */
  killedBy: string | undefined;
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

/**
 * Runs the mutants one after the other; one that makes even the unmutated code fail would prove nothing, so that is run
 * first.
 */
export async function runMutants(options: MutantOptions = {}): Promise<MutantResult[]> {
  const wanted = mutants.filter(({ name, file }) => `${name} ${file}`.includes(options.only ?? ''));
  const folder = mkdtempSync(join(tmpdir(), 'colo-mutants-'));
  try {
    for (const name of copied) cpSync(join(home, name), join(folder, name), { recursive: true, filter: link(folder) });
    symlinkSync(join(home, 'node_modules'), join(folder, 'node_modules'));
    const results: MutantResult[] = [];
    for (const mutant of wanted) {
      if (options.signal?.aborted === true) break;
      const result = await runMutant(folder, mutant, options);
      results.push(result);
      options.onResult?.(result, results.length, wanted.length);
    }
    return results;
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
    for (const stage of await stages(folder, mutant, options.seeds ?? 500)) {
      if (killedBy !== undefined || options.signal?.aborted === true) break;
      if (!(await passes(folder, stage, options.signal))) killedBy = stage.name;
    }
    return { name: mutant.name, file: mutant.file, killedBy, seconds: (performance.now() - startedMs) / 1000 };
  } finally {
    write(original);
  }
}

async function stages(folder: string, { file }: Mutant, seeds: number): Promise<Stage[]> {
  const own = file.split('/').slice(0, 2).join('/');
  const tests = async (root: string) => {
    const names = await readdir(join(folder, root), { recursive: true });
    return names.filter((name) => name.endsWith('.test.ts')).map((name) => join(root, name));
  };
  const test = (name: string, files: string[]): Stage => ({ name, args: ['--test', '--test-concurrency=2', ...files] });
  const near = await tests(own);
  const sim = await tests('sim');
  return [
    ...(near.length === 0 ? [] : [test(`unit tests of ${own}`, near)]),
    test(
      'unit tests',
      (await tests('src')).filter((name) => !near.includes(name)),
    ),
    test('tests of the simulation', sim),
    { name: `${seeds} seeds`, args: ['src/cli/main.ts', 'sim', '--seed', '1', '--seeds', String(seeds)] },
  ];
}

async function passes(folder: string, { args }: Stage, signal: AbortSignal | undefined): Promise<boolean> {
  const child = spawn(process.execPath, [...nodeArgs, ...args], { cwd: folder, detached: true, stdio: 'ignore' });
  const end = () => endGroup(child);
  const timer = setTimeout(end, stageTimeoutMs);
  signal?.addEventListener('abort', end);
  try {
    return await new Promise<boolean>((done) => {
      child.once('error', () => done(false));
      child.once('close', (code) => done(code === 0));
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
