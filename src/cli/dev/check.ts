// `colo check`: the checks that need no machine, in seconds. Tools do the checking, we only call them:
//
//   types    tsc            tsconfig.json
//   lint     oxlint         .oxlintrc.json: promises nobody awaits, clocks and randomness in cores
//   format   biome          biome.json, and limits.grit: bounds stand in limits.ts files
//   rules    rules/         ours: layers (which folder may import which), circles of imports, widths and lengths

import { dirname, join, resolve } from 'node:path';
import { ColoError, errorCodes } from '../../base/errors.ts';
import { tryCommand } from '../../host/command.ts';
import { rulesFaults } from './rules/rules.ts';

interface Check {
  name: string;
  /** What it complains of; undefined when all is well. */
  look: () => Promise<string | undefined>;
}

const home = resolve(import.meta.dirname, '../../..');

const checks: Check[] = [
  { name: 'rules', look: ownRules },
  { name: 'types', look: () => tool('tsc', ['-p', '.']) },
  { name: 'lint', look: () => tool('oxlint', ['--type-aware']) },
  { name: 'format', look: () => tool('biome', ['check', '--colors=off']) },
];

export interface CheckResult {
  name: string;
  ok: boolean;
  seconds: number;
  /** What it said, when it failed. */
  output: string;
}

async function ownRules(): Promise<string | undefined> {
  const faults = await rulesFaults(home);
  return faults.length === 0 ? undefined : `${faults.join('\n')}\n`;
}

async function tool(command: string, args: string[]): Promise<string | undefined> {
  const result = await tryCommand(join(home, 'node_modules/.bin', command), args, {
    cwd: home,
    // The tools' own start lines look for "node": it must be the one that runs us.
    environment: { PATH: `${dirname(process.execPath)}:${process.env['PATH'] ?? ''}` },
  });
  return result.code === 0 ? undefined : `${result.failure ?? ''}${result.stdout}${result.stderr}`;
}

async function run({ name, look }: Check): Promise<CheckResult> {
  const startedMs = performance.now();
  const output = await look();
  const seconds = Math.round((performance.now() - startedMs) / 100) / 10;
  return { name, ok: output === undefined, seconds, output: output ?? '' };
}

function lineOf({ name, ok, seconds, output }: CheckResult): string {
  return `${ok ? 'ok    ' : 'failed'} ${name} (${seconds} s)\n${ok ? '' : `${output}\n`}`;
}

export interface CheckOptions {
  json?: boolean;
  /** Where the lines go; standard output unless told. */
  out?: NodeJS.WritableStream;
}

/**
 * Runs every check, or those that are named; returns the exit code. One line for each and what failed, or all as JSON.
 */
export async function check(only: string[] = [], options: CheckOptions = {}): Promise<number> {
  const { json = false, out = process.stdout } = options;
  const known = checks.map(({ name }) => name);
  const unknown = only.find((name) => !known.includes(name));
  if (unknown !== undefined)
    throw new ColoError(errorCodes.input, `there is no check ${unknown}`, { hint: `one of ${known.join(', ')}` });
  const results: CheckResult[] = [];
  for (const one of checks) {
    if (only.length > 0 && !only.includes(one.name)) continue;
    const result = await run(one);
    results.push(result);
    if (!json) out.write(lineOf(result));
  }
  const failed = results.filter(({ ok }) => !ok).map(({ name }) => name);
  if (json) out.write(`${JSON.stringify(results, null, 2)}\n`);
  else out.write(failed.length === 0 ? 'All checks passed.\n' : `Checks failed: ${failed.join(', ')}.\n`);
  return failed.length === 0 ? 0 : 1;
}
