// `colo doctor`, `colo bench` and `colo test` behind their words on the command line.

import { benchCheckpoint } from '../../../bench/checkpoint.ts';
import { benchDisk } from '../../../bench/disk.ts';
import { benchFailover } from '../../../bench/failover.ts';
import { benchMemory } from '../../../bench/memory.ts';
import { benchProxy } from '../../../bench/proxy.ts';
import { benchSimilarity } from '../../../bench/similarity.ts';
import { ColoError, errorCodes } from '../../base/errors.ts';
import { ensurePackages, guestPackages, runtimePackages } from '../../host/packages.ts';
import { doctor, formatDoctor } from '../doctor.ts';
import { runTests, type Suite } from './test.ts';

export async function doctorCommand(options: { install: boolean; json: boolean }): Promise<number> {
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
  const known = suites.find((one) => one === (suite ?? 'all'));
  if (known === undefined)
    throw new ColoError(errorCodes.input, `there is no suite ${suite}`, { hint: `one of ${suites.join(', ')}` });
  return runTests(known, {
    json: options.json,
    ...(options.name === undefined ? {} : { namePattern: options.name }),
    ...(options.file === undefined ? {} : { filePattern: options.file }),
  });
}

interface BenchOptions {
  rounds: number;
  pages?: number;
  json: boolean;
}

/** A report that judges itself says `ok`. */
const benchmarks = new Map<string, (options: BenchOptions) => Promise<unknown>>([
  ['checkpoint', benchCheckpoint],
  ['disk', benchDisk],
  ['failover', benchFailover],
  ['memory', benchMemory],
  ['proxy', benchProxy],
  ['similarity', benchSimilarity],
]);

export async function bench(what: string, options: Partial<BenchOptions> & { json: boolean }): Promise<number> {
  const measure = benchmarks.get(what);
  if (measure === undefined)
    throw new ColoError(errorCodes.input, `there is no benchmark ${what}`, {
      hint: `there are: ${[...benchmarks.keys()].join(', ')}`,
    });
  if (options.pages !== undefined && what !== 'checkpoint')
    throw new ColoError(errorCodes.input, `--pages is for the benchmark checkpoint, not for ${what}`);
  await ensurePackages([...runtimePackages, ...guestPackages], {
    why: 'run the benchmark',
    onProgress: (line) => process.stderr.write(`- ${line}\n`),
  });
  // A round of similarity is minutes long.
  const report = await measure({ rounds: what === 'similarity' ? 3 : 30, ...options });
  return typeof report === 'object' && report !== null && 'ok' in report && report.ok === false ? 1 : 0;
}
