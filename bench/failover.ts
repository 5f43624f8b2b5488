// The gap that a client sees, for each kind of death. `colo bench failover` prints the table, or JSON with every
// sample.
//
// Three hosts as network namespaces on a bridge, an etcd with a member on each, TLS between them (src/lab/vm-nodes.ts;
// it needs root), one guest that lives through all of it, and one client in a namespace of its own: a TCP session that
// sends a numbered line every 10 ms and checks every reply. Fault after fault, in turn, each at a random moment, when
// the VM is protected again and no suspicion of before is still remembered:
//
//   primary killed      colod and QEMU, SIGKILL: the kernel closes its connections
//   primary QEMU killed colod lives and hands over
//   primary silent      colod and QEMU, SIGSTOP: nothing closes, only beats are missing (killed when it is over)
//   secondary killed    colod and QEMU, SIGKILL
//   planned             the operator's failover
//
//   gap       longest time between two replies around the fault, in the client
//   detected  from the fault to the survivor's doubt;  decided: to the end of its takeover, or of its going alone

import { buildGuest } from '../guest/build.ts';
import { readyLine } from '../guest/recipe.ts';
import { callNode } from '../src/api/node-client.ts';
import type { NodeStatus } from '../src/api/node-status.ts';
import { delay, systemClock, wallTime } from '../src/base/clock.ts';
import { ColoError, errorCodes } from '../src/base/errors.ts';
import { seededRandom } from '../src/base/random.ts';
import { percentiles } from '../src/checkpoint/record.ts';
import { checkSpec } from '../src/config/spec.ts';
import { echoRules, LineClient } from '../src/demo/clients/lines.ts';
import { consoleSays } from '../src/demo/console.ts';
import { clusterPackages, ensurePackages } from '../src/host/packages.ts';
import { LocalCluster } from '../src/lab/vm-nodes.ts';

export interface FailoverBenchOptions {
  /** Faults of each kind. */
  rounds: number;
  json: boolean;
  print?: (text: string) => void;
}

const faults = ['primary killed', 'primary QEMU killed', 'primary silent', 'secondary killed', 'planned'] as const;
type Fault = (typeof faults)[number];

export interface FailoverSample {
  fault: Fault;
  gapMs: number;
  detectedMs: number;
  decidedMs: number;
  /** Silence at which the survivor suspected its peer, at that time. */
  suspectAfterMs: number;
}

const waitMs = 120_000;
const paceMs = 10;
/** Replies after the decision that show that the session goes on. */
const repliesWanted = 20;
/**
 * A peer that is back sooner counts as wrongly suspected (src/heartbeat/limits.ts), and the next one is given more
 * time.
 */
const deadForMs = 5500;
const momentMs = 400;

interface Stage {
  cluster: LocalCluster;
  client: LineClient;
}

export async function benchFailover(options: FailoverBenchOptions): Promise<FailoverSample[]> {
  const print = options.print ?? ((text: string) => void process.stdout.write(text));
  await ensurePackages(clusterPackages, { why: 'run several hosts' });
  const stage = await setStage();
  const samples: FailoverSample[] = [];
  const random = seededRandom(1);
  try {
    for (let round = 0; round < options.rounds; round += 1) {
      for (const fault of faults) samples.push(await measure(stage, fault, random() * momentMs));
      process.stderr.write(`- round ${round + 1} of ${options.rounds}\n`);
    }
    const report = await stage.client.finish(waitMs);
    if (!report.ok)
      throw new ColoError(errorCodes.timeout, `the client was not served as it must be: ${report.detail}`);
  } finally {
    stage.client.abort();
    await stage.cluster.stop();
  }
  print(options.json ? `${JSON.stringify(samples, null, 2)}\n` : tableOf(samples));
  return samples;
}

async function setStage(): Promise<Stage> {
  const guest = await buildGuest({ onProgress: (line) => process.stderr.write(`- ${line}\n`) });
  const spec = checkSpec({ vm: 'bench-failover', boot: { guest: 'demo' } }, 'the benchmark');
  const boot = { kernel: guest.kernel, initrd: guest.initrd, cmdline: guest.cmdline };
  const cluster = await LocalCluster.start({ spec, boot, hosts: 3, clock: systemClock });
  try {
    const path = cluster.serialLog('h1');
    await consoleSays(cluster.node('h1'), { text: readyLine, path, timeoutMs: waitMs });
    await cluster.startCandidates();
    const rules = { ...echoRules(guest.ports.echoTcp, paceMs), host: spec.network.address };
    return { cluster, client: await LineClient.start(rules, systemClock) };
  } catch (error) {
    await cluster.stop();
    throw error;
  }
}

async function measure(stage: Stage, fault: Fault, afterMs: number): Promise<FailoverSample> {
  const { cluster, client } = stage;
  const { primary, secondary } = await protectedPair(cluster);
  const survivor = fault === 'secondary killed' ? primary : secondary;
  await served(stage);
  const suspectAfterMs = survivor.heartbeat?.suspectAfterMs ?? 0;
  await delay(afterMs);
  client.takeGap();
  const { at, after } = await strike(cluster, fault, fault === 'secondary killed' ? secondary.node : primary.node);
  const isDecided = (one: NodeStatus) =>
    one.node === survivor.node && one.role === 'primary' && one.term > primary.term && one.failover !== null;
  const all = await cluster.until(`${survivor.node} alone`, waitMs, (seen) => seen.some(isDecided));
  await served(stage);
  const gapMs = client.takeGap();
  const failover = all.find(isDecided)?.failover;
  await after();
  const { detectedAt = at, doneAt = at } = failover ?? {};
  return { fault, gapMs, detectedMs: detectedAt - at, decidedMs: doneAt - at, suspectAfterMs };
}

/** Does it to this host. `after` is to be called when it is over: the host is there again then. */
async function strike(
  cluster: LocalCluster,
  fault: Fault,
  name: string,
): Promise<{ at: number; after: () => Promise<void> }> {
  const node = cluster.node(name);
  const signalQemu = await node.holdQemu();
  const at = wallTime(systemClock.now());
  const restart = async () => {
    await node.exited;
    await cluster.restartNode(name);
  };
  switch (fault) {
    case 'planned':
      await callNode({ socketPath: node.apiPath, method: 'POST', path: '/failover' });
      return { at, after: async () => undefined };
    case 'primary QEMU killed':
      signalQemu('SIGKILL');
      return { at, after: async () => undefined };
    case 'primary silent':
      node.signal('SIGSTOP');
      signalQemu('SIGSTOP');
      return { at, after: () => buryAndRestart() };
    default:
      node.signal('SIGKILL');
      signalQemu('SIGKILL');
      return { at, after: restart };
  }

  async function buryAndRestart(): Promise<void> {
    node.signal('SIGKILL');
    signalQemu('SIGKILL');
    await delay(deadForMs);
    await restart();
  }
}

async function protectedPair(cluster: LocalCluster): Promise<{ primary: NodeStatus; secondary: NodeStatus }> {
  const by = (all: NodeStatus[], role: string) => all.find((one) => one.role === role && one.protected);
  for (;;) {
    const all = await cluster.until('protected', waitMs, (seen) => by(seen, 'secondary') !== undefined);
    const primary = by(all, 'primary');
    const secondary = by(all, 'secondary');
    if (primary !== undefined && secondary !== undefined) return { primary, secondary };
  }
}

async function served({ cluster, client }: Stage): Promise<void> {
  const before = Number.parseInt(client.progress(), 10);
  const isServed = () => Number.parseInt(client.progress(), 10) >= before + repliesWanted;
  await cluster.until('serving', waitMs, isServed);
}

function tableOf(samples: readonly FailoverSample[]): string {
  const head = ['runs', 'detected p50', 'decided p50', 'gap p50', 'gap p99', 'gap max', 'bears p50'];
  const rows = faults.map((fault) => {
    const own = samples.filter((sample) => sample.fault === fault);
    const of = (pick: (sample: FailoverSample) => number) => percentiles(own.map(pick));
    const gap = of((sample) => sample.gapMs);
    const detected = of((sample) => sample.detectedMs);
    const decided = of((sample) => sample.decidedMs);
    const bears = of((sample) => sample.suspectAfterMs);
    return [own.length, detected.p50, decided.p50, gap.p50, gap.p99, gap.max, bears.p50];
  });
  const line = (name: string, cells: readonly string[]) =>
    `${name.padEnd(20)}${cells.map((cell) => cell.padStart(14)).join('')}\n`;
  const lines = rows.map((row, index) =>
    line(
      faults[index] ?? '',
      row.map((value) => value.toFixed(0)),
    ),
  );
  return `milliseconds\n${line('', head)}${lines.join('')}`;
}
