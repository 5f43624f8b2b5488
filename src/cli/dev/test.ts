// `colo test`: runs node:test over the files of a suite, after bringing what they need, and ends with a total.
//
//   unit         types, then src, guest, docs, sim, test/fuzz and test/mutants: seconds
//   integration  test/** without those and test/soak: real QEMU, one file at a time
//   soak         test/soak/**: long runs
//   all          check, unit, integration
//
// The runner is a process group of its own, so that ending us ends everything it started.

import { type ChildProcess, spawn } from 'node:child_process';
import { readdir } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { join, relative, resolve, sep } from 'node:path';
import { buildGuest } from '../../../guest/build.ts';
import { ColoError, errorCodes } from '../../base/errors.ts';
import { ensurePackages, guestPackages, runtimePackages } from '../../host/packages.ts';
import { testGraceMs, testTimes } from '../limits.ts';
import { check } from './check.ts';

export type Suite = 'all' | 'unit' | 'integration' | 'soak';

export interface TestOptions {
  /** Only tests whose name matches this regular expression. */
  namePattern?: string;
  /** Only files whose path from the project's root contains this. */
  filePattern?: string;
  /** Standard output is for the totals alone, as JSON. */
  json?: boolean;
}

export interface Totals {
  tests: number;
  pass: number;
  fail: number;
  cancelled: number;
  skipped: number;
}

type Part = 'unit' | 'integration' | 'soak';

const home = resolve(import.meta.dirname, '../../..');

function partOf(path: string): Part {
  if (path.startsWith(`test${sep}soak${sep}`)) return 'soak';
  if (path.startsWith(`test${sep}fuzz${sep}`) || path.startsWith(`test${sep}mutants${sep}`)) return 'unit';
  return path.startsWith(`test${sep}`) ? 'integration' : 'unit';
}

async function testFiles(part: Part, options: TestOptions): Promise<string[]> {
  const found: string[] = [];
  for (const folder of ['src', 'guest', 'docs', 'sim', 'test']) {
    const entries = await readdir(join(home, folder), { recursive: true, withFileTypes: true }).catch(() => []);
    for (const entry of entries) {
      const path = relative(home, join(entry.parentPath, entry.name));
      if (entry.isFile() && path.endsWith('.test.ts') && partOf(path) === part) found.push(path);
    }
  }
  return found.filter((path) => path.includes(options.filePattern ?? '')).sort();
}

/** The counts in the closing lines of node's spec reporter; zero where a line is missing. */
export function parseTotals(output: string): Totals {
  const count = (name: string): number => Number(new RegExp(`^ℹ ${name} (\\d+)$`, 'm').exec(output)?.[1] ?? 0);
  return {
    tests: count('tests'),
    pass: count('pass'),
    fail: count('fail'),
    cancelled: count('cancelled'),
    skipped: count('skipped'),
  };
}

function endGroup(child: ChildProcess, signal: NodeJS.Signals): void {
  try {
    if (child.pid !== undefined) process.kill(-child.pid, signal);
  } catch {
    // It is already gone.
  }
}

/** Resolves when the child and its output have ended; passes our own signals on to its whole group. */
async function untilClosed(child: ChildProcess): Promise<number> {
  let timer: NodeJS.Timeout | undefined;
  let interrupted = false;
  const forward = (signal: NodeJS.Signals): void => {
    interrupted = true;
    endGroup(child, signal);
    timer ??= setTimeout(() => endGroup(child, 'SIGKILL'), testGraceMs);
  };
  process.on('SIGINT', forward).on('SIGTERM', forward).on('SIGHUP', forward);
  try {
    const code = await new Promise<number>((done) => {
      child.once('error', () => done(1));
      child.once('close', (exitCode) => done(exitCode ?? 1));
    });
    return interrupted ? 130 : code;
  } finally {
    clearTimeout(timer);
    process.off('SIGINT', forward).off('SIGTERM', forward).off('SIGHUP', forward);
    endGroup(child, 'SIGKILL');
  }
}

/** Where what the tests say goes. */
function output({ json }: TestOptions): NodeJS.WriteStream {
  return json === true ? process.stderr : process.stdout;
}

async function runPart(part: Part, options: TestOptions): Promise<{ code: number; totals: Totals }> {
  const files = await testFiles(part, options);
  output(options).write(`\n${part}: ${files.length} files\n`);
  if (files.length === 0) return { code: 0, totals: parseTotals('') };
  const args = ['--disable-warning=ExperimentalWarning', '--test', '--test-reporter=spec'];
  args.push(`--test-timeout=${testTimes[`${part}Ms`]}`);
  // Unit tests share nothing: a file on each core, where node would leave one core idle.
  args.push(`--test-concurrency=${part === 'unit' ? availableParallelism() : 1}`);
  if (options.namePattern !== undefined) args.push(`--test-name-pattern=${options.namePattern}`);
  const child = spawn(process.execPath, [...args, ...files], {
    cwd: home,
    detached: true,
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let tail = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    output(options).write(text);
    // The summary stands at the end, before the list of failures: keep enough to find it.
    tail = (tail + text).slice(-4_000_000);
  });
  const code = await untilClosed(child);
  return { code, totals: parseTotals(tail) };
}

async function bringWhatIsNeeded(options: TestOptions): Promise<void> {
  const onProgress = (text: string): void => void output(options).write(`${text}\n`);
  await ensurePackages([...runtimePackages, ...guestPackages], { why: 'run the integration tests', onProgress });
  await buildGuest({ onProgress });
}

/** A file that is called otherwise shall not be looked for after a minute of other checks. */
async function refuseNothing(parts: Part[], options: TestOptions): Promise<void> {
  const files = await Promise.all(parts.map((part) => testFiles(part, options)));
  if (files.flat().length > 0) return;
  throw new ColoError(errorCodes.input, `no file of ${parts.join(' or ')} has ${options.filePattern} in its path`, {
    hint: 'test files end in .test.ts and are named from the root, such as test/functional/qemu.test.ts',
  });
}

function partsOf(suite: Suite): Part[] {
  return suite === 'all' ? ['unit', 'integration'] : [suite];
}

function report(totals: Totals[], { passed, json }: { passed: boolean; json: boolean }): void {
  const sum = (name: keyof Totals): number => totals.reduce((total, each) => total + each[name], 0);
  const names = ['tests', 'pass', 'fail', 'cancelled', 'skipped'] as const;
  const sums = Object.fromEntries(names.map((name) => [name, sum(name)]));
  const lines = names.map((name) => `# ${name} ${sum(name)}\n`).join('');
  process.stdout.write(
    json ? `${JSON.stringify({ ok: passed, ...sums })}\n` : `\n${passed ? 'Passed' : 'Failed'}.\n${lines}`,
  );
}

async function checksPass(suite: Suite, options: TestOptions): Promise<boolean> {
  const only = suite === 'unit' ? ['types'] : [];
  return (await check(only, { out: output(options) })) === 0;
}

/** Runs a suite and prints a total last; returns the exit code: 0 only when tests ran and all passed. */
export async function runTests(suite: Suite, options: TestOptions = {}): Promise<number> {
  const parts = partsOf(suite);
  await refuseNothing(parts, options);
  if (parts.some((part) => part !== 'unit')) await bringWhatIsNeeded(options);
  let failed = false;
  if (suite === 'all' || suite === 'unit') failed = !(await checksPass(suite, options));
  const totals: Totals[] = [];
  for (const part of parts) {
    const result = await runPart(part, options);
    totals.push(result.totals);
    failed ||= result.code !== 0;
    if (result.code === 130) break;
  }
  const count = totals.reduce((total, each) => total + each.tests, 0);
  if (count === 0) output(options).write('\nNo test ran: nothing matches, and that is a failure.\n');
  report(totals, { passed: !failed && count > 0, json: options.json === true });
  return failed || count === 0 ? 1 : 0;
}
