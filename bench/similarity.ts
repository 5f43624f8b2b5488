// What each measure of response similarity is worth: the demo's guest under the demo's clients (a download, redis, a TCP
// and a UDP echo), without a fault, once for each variant of the spec. `colo bench similarity` prints the table, or JSON.
//
// Every variant is a pair of its own with guests of their own, one after the other. A run of a few seconds sees few
// checkpoints: differences of one or two are chance. Longer runs (--rounds, in seconds) say more.

import { buildGuest, type Guest } from '../guest/build.ts';
import type { NodeStatus } from '../src/api/status.ts';
import { delay, systemClock } from '../src/base/clock.ts';
import { ColoError, errorCodes } from '../src/base/errors.ts';
import { checkSpec } from '../src/config/spec.ts';
import type { Client } from '../src/demo/client.ts';
import { consoleSays } from '../src/demo/console.ts';
import { DatagramClient } from '../src/demo/datagrams.ts';
import { DownloadClient } from '../src/demo/download.ts';
import { echoRules, LineClient, redisRules } from '../src/demo/lines.ts';
import { freePorts } from '../src/lan/gateway.ts';
import { LocalPair } from '../src/local/pair.ts';

export interface SimilarityBenchOptions {
  /** Seconds of each run. */
  rounds: number;
  json: boolean;
  print?: (text: string) => void;
}

interface Variant {
  name: string;
  similarity?: { timestamps?: string; acks?: string; window?: string };
  cpu?: string;
}

export interface SimilarityCase {
  name: string;
  seconds: number;
  checkpoints: number;
  reasons: Record<string, number>;
  matchedShare: number;
  holdMsP50: number;
  holdMsP99: number;
  redisMsP50: number | null;
  echoMsP50: number | null;
  downloadMiBPerSecond: number;
}

const variants: readonly Variant[] = [
  { name: 'defaults' },
  { name: 'timestamps coarse', similarity: { timestamps: 'coarse' } },
  { name: 'timestamps passed', similarity: { timestamps: 'passed' } },
  { name: 'acks held', similarity: { acks: 'held' } },
  { name: 'window coarse', similarity: { window: 'coarse' } },
  { name: 'CPU with RDRAND', cpu: 'max' },
];
const secondsMax = 120;
const bootTimeoutMs = 120_000;

export async function benchSimilarity(options: SimilarityBenchOptions): Promise<SimilarityCase[]> {
  const print = options.print ?? ((text: string) => void process.stdout.write(text));
  const guest = await buildGuest({ onProgress: (line) => process.stderr.write(`- ${line}\n`) });
  const cases: SimilarityCase[] = [];
  if (!options.json) print(columns(['variant', 'checkpoints', 'by match', 'hold p50/p99', 'redis', 'echo', 'MiB/s']));
  for (const variant of variants) {
    const found = await measure(variant, guest, Math.min(options.rounds, secondsMax));
    cases.push(found);
    if (!options.json) print(row(found));
  }
  if (options.json) print(`${JSON.stringify(cases, null, 2)}\n`);
  return cases;
}

async function measure(variant: Variant, guest: Guest, seconds: number): Promise<SimilarityCase> {
  const ports = await freePorts(4);
  const guestPorts = [guest.ports.http, guest.ports.redis, guest.ports.echoTcp, guest.ports.echoUdp];
  const forwards = guestPorts.map((guestPort, index) => ({
    protocol: index === 3 ? ('udp' as const) : ('tcp' as const),
    hostPort: ports[index] ?? 0,
    guestPort,
  }));
  const machine = variant.cpu === undefined ? {} : { cpu: variant.cpu };
  const protect = { similarity: variant.similarity ?? {} };
  const spec = checkSpec({ vm: 'similarity', boot: { guest: 'demo' }, machine, protect }, variant.name);
  const boot = { kernel: guest.kernel, initrd: guest.initrd, cmdline: guest.cmdline };
  const pair = await LocalPair.start({ spec, boot, clock: systemClock, forwards });
  const clients: Client[] = [];
  try {
    const { signal } = new AbortController();
    const said = { text: 'colo-guest ready', path: `${pair.logDir}/a.serial`, timeoutMs: bootTimeoutMs, signal };
    await consoleSays(pair.a, said);
    await pair.startSecondary();
    await pair.until('protected', bootTimeoutMs, (all) => all.some((one) => one.role === 'primary' && one.protected));
    return await run(variant.name, { pair, guest, ports, clients, seconds });
  } finally {
    for (const client of clients) client.abort();
    await pair.stop();
  }
}

interface Run {
  pair: LocalPair;
  guest: Guest;
  ports: readonly number[];
  clients: Client[];
  seconds: number;
}

async function run(name: string, { pair, guest, ports, clients, seconds }: Run): Promise<SimilarityCase> {
  const [http = 0, redis = 0, echo = 0, udp = 0] = ports;
  const { downloadPath: path, downloadBytes, downloadSha256: sha256 } = guest.files;
  clients.push(await DownloadClient.start({ port: http, path, bytes: downloadBytes, sha256 }, systemClock));
  clients.push(await LineClient.start(redisRules(redis), systemClock));
  clients.push(await LineClient.start(echoRules(echo), systemClock));
  clients.push(await DatagramClient.start({ port: udp }, systemClock));
  const before = primaryOf(await pair.statuses());
  await delay(seconds * 1000);
  const after = primaryOf(await pair.statuses());
  const reports = await Promise.all(clients.map((client) => client.finish(60_000)));
  const failed = reports.find((report) => !report.ok);
  if (failed !== undefined) throw new ColoError(errorCodes.input, `${name}: ${failed.name}: ${failed.detail}`);
  const latency = (client: string) => reports.find((report) => report.name === client)?.latencyMsP50 ?? null;
  const matched = (after.released?.byMatch ?? 0) - (before.released?.byMatch ?? 0);
  const committed = (after.released?.byCommit ?? 0) - (before.released?.byCommit ?? 0);
  return {
    name,
    seconds,
    checkpoints: (after.checkpoints?.count ?? 0) - (before.checkpoints?.count ?? 0),
    reasons: after.checkpoints?.reasons ?? {},
    matchedShare: matched / Math.max(1, matched + committed),
    holdMsP50: after.released?.holdMs.p50 ?? 0,
    holdMsP99: after.released?.holdMs.p99 ?? 0,
    redisMsP50: latency('redis'),
    echoMsP50: latency('echo'),
    downloadMiBPerSecond: (after.traffic.egressBytes - before.traffic.egressBytes) / 2 ** 20 / seconds,
  };
}

function primaryOf(statuses: readonly NodeStatus[]): NodeStatus {
  const found = statuses.find(({ role }) => role === 'primary');
  if (found === undefined) throw new ColoError(errorCodes.input, 'there is no primary to measure');
  return found;
}

function columns(cells: readonly string[]): string {
  return `${cells.map((cell, index) => (index === 0 ? cell.padEnd(20) : cell.padStart(16))).join('')}\n`;
}

function row(each: SimilarityCase): string {
  const ms = (value: number | null) => (value === null ? '-' : `${value.toFixed(1)} ms`);
  return columns([
    each.name,
    `${each.checkpoints} in ${each.seconds} s`,
    `${(each.matchedShare * 100).toFixed(2)} %`,
    `${each.holdMsP50.toFixed(1)}/${each.holdMsP99.toFixed(1)} ms`,
    ms(each.redisMsP50),
    ms(each.echoMsP50),
    each.downloadMiBPerSecond.toFixed(1),
  ]);
}
