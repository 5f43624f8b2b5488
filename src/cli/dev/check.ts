// `colo check`: the checks that need no machine, in seconds. Tools do the checking, we only call them:
//
//   types    tsc            tsconfig.json
//   lint     oxlint         .oxlintrc.json: promises nobody awaits, clocks and randomness in cores, and the layers
//                           (which folder may import which)
//   format   biome          biome.json, and limits.grit: bounds stand in limits.ts files
//
// The layers are rules of oxlint because dependency-cruiser cannot read TypeScript with version 7 of the compiler.

import { dirname, join, resolve } from 'node:path';
import { ColoError, errorCodes } from '../../base/errors.ts';
import { tryCommand } from '../../host/command.ts';

interface Tool {
  name: string;
  command: string;
  args: string[];
}

const home = resolve(import.meta.dirname, '../../..');

const tools: Tool[] = [
  { name: 'types', command: 'tsc', args: ['-p', '.'] },
  { name: 'lint', command: 'oxlint', args: ['--type-aware'] },
  { name: 'format', command: 'biome', args: ['check', '--colors=off'] },
];

export interface CheckResult {
  name: string;
  ok: boolean;
  seconds: number;
  /** What it said, when it failed. */
  output: string;
}

async function run(tool: Tool): Promise<CheckResult> {
  const startedMs = performance.now();
  const result = await tryCommand(join(home, 'node_modules/.bin', tool.command), tool.args, {
    cwd: home,
    // The tools' own start lines look for "node": it must be the one that runs us.
    environment: { PATH: `${dirname(process.execPath)}:${process.env['PATH'] ?? ''}` },
  });
  const ok = result.code === 0;
  const seconds = Math.round((performance.now() - startedMs) / 100) / 10;
  return { name: tool.name, ok, seconds, output: ok ? '' : `${result.failure ?? ''}${result.stdout}${result.stderr}` };
}

function lineOf({ name, ok, seconds, output }: CheckResult): string {
  return `${ok ? 'ok    ' : 'failed'} ${name} (${seconds} s)\n${ok ? '' : `${output}\n`}`;
}

export interface CheckOptions {
  json?: boolean;
  /** Where the lines go; standard output unless told. */
  out?: NodeJS.WritableStream;
}

/** Runs every check, or those that are named; returns the exit code. One line for each and what failed, or all as JSON. */
export async function check(only: string[] = [], options: CheckOptions = {}): Promise<number> {
  const { json = false, out = process.stdout } = options;
  const known = tools.map((tool) => tool.name);
  const unknown = only.find((name) => !known.includes(name));
  if (unknown !== undefined)
    throw new ColoError(errorCodes.input, `there is no check ${unknown}`, { hint: `one of ${known.join(', ')}` });
  const results: CheckResult[] = [];
  for (const tool of tools) {
    if (only.length > 0 && !only.includes(tool.name)) continue;
    const result = await run(tool);
    results.push(result);
    if (!json) out.write(lineOf(result));
  }
  const failed = results.filter(({ ok }) => !ok).map(({ name }) => name);
  if (json) out.write(`${JSON.stringify(results, null, 2)}\n`);
  else out.write(failed.length === 0 ? 'All checks passed.\n' : `Checks failed: ${failed.join(', ')}.\n`);
  return failed.length === 0 ? 0 : 1;
}
