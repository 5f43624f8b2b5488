// `colo check`: the checks that need no machine, in seconds. Tools do the checking, we only call them:
//
//   types    tsc            tsconfig.json
//   lint     oxlint         .oxlintrc.json: promises nobody awaits, clocks and randomness in cores, and the layers
//                           (which folder may import which)
//   format   biome          biome.json
//
// The layers are rules of oxlint because dependency-cruiser cannot read TypeScript with version 7 of the compiler.

import { dirname, join, resolve } from 'node:path';
import { ColoError, errorCodes } from '../base/errors.ts';
import { tryCommand } from '../host/command.ts';

interface Tool {
  name: string;
  command: string;
  args: string[];
}

const home = resolve(import.meta.dirname, '../..');

const tools: Tool[] = [
  { name: 'types', command: 'tsc', args: ['-p', '.'] },
  { name: 'lint', command: 'oxlint', args: ['--type-aware'] },
  { name: 'format', command: 'biome', args: ['check', '--colors=off'] },
];

async function run(tool: Tool): Promise<boolean> {
  const startedMs = performance.now();
  const result = await tryCommand(join(home, 'node_modules/.bin', tool.command), tool.args, {
    cwd: home,
    // The tools' own start lines look for "node": it must be the one that runs us.
    environment: { PATH: `${dirname(process.execPath)}:${process.env['PATH'] ?? ''}` },
  });
  const passed = result.code === 0;
  const seconds = ((performance.now() - startedMs) / 1000).toFixed(1);
  process.stdout.write(`${passed ? 'ok    ' : 'failed'} ${tool.name} (${seconds} s)\n`);
  if (!passed) process.stdout.write(`${result.failure ?? ''}${result.stdout}${result.stderr}\n`);
  return passed;
}

/** Runs every check, or those that are named, prints one line for each and what failed; returns the exit code. */
export async function check(only: string[] = []): Promise<number> {
  const known = tools.map((tool) => tool.name);
  const unknown = only.find((name) => !known.includes(name));
  if (unknown !== undefined)
    throw new ColoError(errorCodes.input, `there is no check ${unknown}`, { hint: `one of ${known.join(', ')}` });
  const failed: string[] = [];
  for (const tool of tools) {
    if (only.length > 0 && !only.includes(tool.name)) continue;
    if (!(await run(tool))) failed.push(tool.name);
  }
  process.stdout.write(failed.length === 0 ? 'All checks passed.\n' : `Checks failed: ${failed.join(', ')}.\n`);
  return failed.length === 0 ? 0 : 1;
}
