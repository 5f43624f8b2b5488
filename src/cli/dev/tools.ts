// `colo doctor`, `colo bench` and `colo test` behind their words on the command line.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { benchCheckpoint } from '../../../bench/checkpoint.ts';
import { benchClocks } from '../../../bench/clocks.ts';
import { benchDisk } from '../../../bench/disk.ts';
import { benchFailover } from '../../../bench/failover.ts';
import { benchMemory } from '../../../bench/memory.ts';
import { benchProxy } from '../../../bench/proxy.ts';
import { benchSimilarity } from '../../../bench/similarity.ts';
import { ColoError, errorCodes } from '../../base/errors.ts';
import { ensurePackages, guestPackages, runtimePackages } from '../../host/packages.ts';
import { doctor, formatDoctor } from '../doctor.ts';
import { runTests, type Suite } from './test.ts';

export async function doctorCommand(options: { install: boolean; accel?: string; json: boolean }): Promise<number> {
  if (options.accel !== undefined) throw new ColoError(errorCodes.input, '--accel goes with --prove');
  if (options.install)
    await ensurePackages([...runtimePackages, ...guestPackages, 'iproute2'], {
      why: 'run and protect VMs',
      onProgress: (line) => process.stderr.write(`- ${line}\n`),
    });
  const lines = await doctor();
  process.stdout.write(options.json ? `${JSON.stringify(lines, null, 2)}\n` : `${formatDoctor(lines)}\n`);
  return lines.some((line) => line.state === 'missing') ? 1 : 0;
}

const suites: readonly Suite[] = ['all', 'unit', 'integration', 'soak'];

export async function testCommand(
  suite: string | undefined,
  options: { name?: string; file?: string; json: boolean },
): Promise<number> {
  if (suite === 'mutants') return runMutants(options.file);
  const known = suites.find((one) => one === (suite ?? 'all'));
  if (known === undefined)
    throw new ColoError(errorCodes.input, `there is no suite ${suite}`, {
      hint: `one of ${suites.join(', ')}, mutants`,
    });
  return runTests(known, {
    json: options.json,
    ...(options.name === undefined ? {} : { namePattern: options.name }),
    ...(options.file === undefined ? {} : { filePattern: options.file }),
  });
}

/** They are tests, which the product does not import: a process of its own, whose Ctrl-C is ours. */
async function runMutants(only: string | undefined): Promise<number> {
  const program = fileURLToPath(new URL('../../../test/mutants/main.ts', import.meta.url));
  const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', program, only ?? ''], {
    stdio: 'inherit',
  });
  const pass = (signal: NodeJS.Signals) => void child.kill(signal);
  process.on('SIGINT', pass).on('SIGTERM', pass).on('SIGHUP', pass);
  const [code] = (await once(child, 'close')) as [number | null];
  return code ?? 1;
}

interface BenchOptions {
  rounds: number;
  pages?: number;
  minutes?: number;
  accel?: 'tcg' | 'kvm';
  guest?: 'linux' | 'bare';
  json: boolean;
}

/** A report that judges itself says `ok`. */
const benchmarks = new Map<string, (options: BenchOptions) => Promise<unknown>>([
  ['checkpoint', benchCheckpoint],
  ['clocks', benchClocks],
  ['disk', benchDisk],
  ['failover', benchFailover],
  ['memory', benchMemory],
  ['proxy', benchProxy],
  ['similarity', benchSimilarity],
]);

/** Whose options are no others'. */
const optionsOf: [name: keyof BenchOptions, whose: string[]][] = [
  ['pages', ['checkpoint']],
  ['accel', ['checkpoint', 'clocks']],
  ['guest', ['checkpoint']],
  ['minutes', ['clocks']],
];

export async function bench(what: string, options: Partial<BenchOptions> & { json: boolean }): Promise<number> {
  const measure = benchmarks.get(what);
  if (measure === undefined)
    throw new ColoError(errorCodes.input, `there is no benchmark ${what}`, {
      hint: `there are: ${[...benchmarks.keys()].join(', ')}`,
    });
  for (const [name, whose] of optionsOf)
    if (options[name] !== undefined && !whose.includes(what))
      throw new ColoError(errorCodes.input, `--${name} is for the benchmark ${whose.join(' or ')}, not for ${what}`);
  await ensurePackages([...runtimePackages, ...guestPackages], {
    why: 'run the benchmark',
    onProgress: (line) => process.stderr.write(`- ${line}\n`),
  });
  // A round of similarity is minutes long.
  const report = await measure({ rounds: what === 'similarity' ? 3 : 30, ...options });
  return typeof report === 'object' && report !== null && 'ok' in report && report.ok === false ? 1 : 0;
}
