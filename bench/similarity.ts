// What each measure of response similarity is worth, by kind of traffic: the demo's guest is protected, once for each
// variant of the spec, and four workloads run one after the other, without a fault:
//
//   nginx      small requests, the next one after the answer      redis     INCR, the next one after the reply
//   download   4 MiB files, as fast as they go                    upload    values of 64 KiB to redis, likewise
//
// Every variant is a pair of its own with guests of their own. All variants are measured in every round, one after the
// other, so that what else the machine does touches all of them alike; --rounds says how often. A figure is the median
// over the rounds, of checkpoints the sum. `colo bench similarity` prints a table for each workload, or JSON.

import { createHash } from 'node:crypto';
import { downloadSha256 } from '../guest/big-file.ts';
import { buildGuest, type Guest } from '../guest/build.ts';
import { readyLine } from '../guest/recipe.ts';
import type { NodeStatus } from '../src/api/node-status.ts';
import { delay, systemClock } from '../src/base/clock.ts';
import { ColoError, errorCodes } from '../src/base/errors.ts';
import { median } from '../src/base/quantile.ts';
import { checkSpec } from '../src/config/spec.ts';
import type { PlacedClient, WantedClient } from '../src/demo/clients/clients.ts';
import { servedBy } from '../src/demo/clients/clients.ts';
import { type Entrance, openEntrance } from '../src/demo/clients/entrance.ts';
import { consoleSays } from '../src/demo/console.ts';
import { LocalPair } from '../src/local/pair.ts';

export interface SimilarityBenchOptions {
  /** How often every variant is measured. */
  rounds: number;
  json: boolean;
  print?: (text: string) => void;
}

interface Variant {
  name: string;
  similarity?: { timestamps?: string; acks?: string; window?: string; dates?: string };
  machine?: { cpu?: string; rtc?: string };
}

const variants: readonly Variant[] = [
  { name: 'defaults' },
  { name: 'timestamps coarse', similarity: { timestamps: 'coarse' } },
  { name: 'timestamps passed', similarity: { timestamps: 'passed' } },
  { name: 'acks held', similarity: { acks: 'held' } },
  { name: 'window coarse', similarity: { window: 'coarse' } },
  { name: 'dates exact', similarity: { dates: 'exact' } },
  { name: 'CPU with RDRAND', machine: { cpu: 'max' } },
  { name: 'rtc vm', machine: { rtc: 'vm' } },
];

const workloads = ['nginx', 'redis', 'download', 'upload'] as const;
type Workload = (typeof workloads)[number];

/** One run of one workload. */
interface Sample {
  checkpoints: number;
  byMatch: number;
  byCommit: number;
  latencyMs: number | null;
  /** Requests, files or values a second. */
  perSecond: number;
}

export interface SimilarityCase {
  workload: Workload;
  variant: string;
  seconds: number;
  checkpointsPerSecond: number;
  matchedShare: number;
  latencyMs: number | null;
  perSecond: number;
}

const roundsMax = 20;
const secondsEach = 3;
const bigMebibytes = 4;
const bootTimeoutMs = 120_000;

export async function benchSimilarity(options: SimilarityBenchOptions): Promise<SimilarityCase[]> {
  const print = options.print ?? ((text: string) => void process.stdout.write(text));
  const guest = await buildGuest({ onProgress: (line) => process.stderr.write(`- ${line}\n`) });
  const rounds = Math.min(options.rounds, roundsMax);
  const samples = new Map<string, Sample[]>();
  for (let round = 1; round <= rounds; round += 1) {
    for (const variant of variants) {
      process.stderr.write(`- round ${round} of ${rounds}: ${variant.name}\n`);
      for (const [workload, sample] of await measure(variant, guest)) {
        const name = `${workload} ${variant.name}`;
        samples.set(name, [...(samples.get(name) ?? []), sample]);
      }
    }
  }
  const cases = workloads.flatMap((workload) =>
    variants.map(({ name }) => caseOf(workload, name, samples.get(`${workload} ${name}`) ?? [])),
  );
  print(options.json ? `${JSON.stringify(cases, null, 2)}\n` : tables(cases, rounds));
  return cases;
}

async function measure(variant: Variant, guest: Guest): Promise<[Workload, Sample][]> {
  const protect = { similarity: variant.similarity ?? {} };
  const input = { vm: 'similarity', boot: { guest: 'demo' }, machine: variant.machine ?? {}, protect };
  const spec = checkSpec(input, variant.name);
  const boot = { kernel: guest.kernel, initrd: guest.initrd, cmdline: `${guest.cmdline} colo.big=${bigMebibytes}` };
  const entrance = await openEntrance({ served: servedBy(guest), clock: systemClock });
  let pair: LocalPair | undefined;
  try {
    pair = await LocalPair.start({ spec, boot, clock: systemClock, ...entrance.network });
    await consoleSays(pair.a, { text: readyLine, path: `${pair.logDir}/a.serial`, timeoutMs: bootTimeoutMs });
    await pair.startSecondary();
    await pair.until('protected', bootTimeoutMs, (all) => all.some((one) => one.role === 'primary' && one.protected));
    await entrance.join(pair.lanPath);
    const found: [Workload, Sample][] = [];
    for (const workload of workloads) found.push([workload, await run(workload, pair, entrance)]);
    return found;
  } finally {
    await entrance.close();
    await pair?.stop();
  }
}

async function run(workload: Workload, pair: LocalPair, entrance: Entrance): Promise<Sample> {
  const client = await entrance.start(clientOf(workload, entrance));
  try {
    const before = await primaryOf(pair);
    await delay(secondsEach * 1000);
    const after = await primaryOf(pair);
    const report = await client.finish(60_000);
    if (!report.ok) throw new ColoError(errorCodes.host, `${workload}: ${report.detail}`);
    return {
      checkpoints: (after.checkpoints?.count ?? 0) - (before.checkpoints?.count ?? 0),
      byMatch: (after.released?.byMatch ?? 0) - (before.released?.byMatch ?? 0),
      byCommit: (after.released?.byCommit ?? 0) - (before.released?.byCommit ?? 0),
      latencyMs: report.latencyMsP50,
      perSecond: report.sent / secondsEach,
    };
  } finally {
    client.abort();
  }
}

function clientOf(workload: Workload, { clients }: Entrance): WantedClient {
  const web = clients.find((one) => one.kind === 'download');
  const redis = clients.find((one): one is PlacedClient => one.kind === 'redis');
  if (web === undefined || redis === undefined) throw new ColoError(errorCodes.input, 'the guest has lost a service');
  const small = 'colo guest\n';
  const smallSha256 = createHash('sha256').update(small).digest('hex');
  switch (workload) {
    case 'nginx':
      return { ...web, name: 'nginx', path: '/', bytes: small.length, sha256: smallSha256, isTimed: true };
    case 'redis':
      return { ...redis, paceMs: 0 };
    case 'download':
      return {
        ...web,
        bytesPerSecondMax: Number.POSITIVE_INFINITY,
        bytes: bigMebibytes << 20,
        sha256: downloadSha256(bigMebibytes),
        isTimed: true,
      };
    case 'upload':
      return { ...redis, kind: 'upload', name: 'upload', paceMs: 0 };
  }
}

/** On a busy host a status may take its time. */
async function primaryOf(pair: LocalPair): Promise<NodeStatus> {
  const isPrimary = (one: NodeStatus) => one.role === 'primary';
  const found = (await pair.until('running', bootTimeoutMs, (all) => all.some(isPrimary))).find(isPrimary);
  if (found === undefined) throw new ColoError(errorCodes.timeout, 'there is no primary to measure');
  return found;
}

function caseOf(workload: Workload, variant: string, samples: readonly Sample[]): SimilarityCase {
  const sum = (of: (one: Sample) => number) => samples.reduce((total, one) => total + of(one), 0);
  const seconds = samples.length * secondsEach;
  const matched = sum(({ byMatch }) => byMatch);
  const latencies = samples.flatMap(({ latencyMs }) => (latencyMs === null ? [] : [latencyMs]));
  return {
    ...{ workload, variant, seconds },
    checkpointsPerSecond: sum(({ checkpoints }) => checkpoints) / seconds,
    matchedShare: matched / Math.max(1, matched + sum(({ byCommit }) => byCommit)),
    latencyMs: latencies.length === 0 ? null : median(latencies),
    perSecond: median(samples.map(({ perSecond }) => perSecond)),
  };
}

function tables(cases: readonly SimilarityCase[], rounds: number): string {
  const head = columns(['', 'checkpoints/s', 'by match', 'latency p50', 'done/s']);
  const parts = workloads.map((workload) => {
    const rows = cases.filter((one) => one.workload === workload).map(row);
    return `${workload}\n${rows.join('')}`;
  });
  return `${head}${parts.join('')}${rounds} rounds of ${secondsEach} s for each line\n`;
}

function row(one: SimilarityCase): string {
  return columns([
    `  ${one.variant}`,
    one.checkpointsPerSecond.toFixed(2),
    `${(one.matchedShare * 100).toFixed(2)} %`,
    one.latencyMs === null ? '-' : `${one.latencyMs.toFixed(1)} ms`,
    one.perSecond.toFixed(1),
  ]);
}

function columns(cells: readonly string[]): string {
  return `${cells.map((cell, index) => (index === 0 ? cell.padEnd(22) : cell.padStart(15))).join('')}\n`;
}
