// `colo demo --disk`: a database survives with its data. A guest with PostgreSQL and redis on a root disk is protected,
// clients write to it, its primary is killed at a random moment, and in the end
//
//   - every acknowledged transfer is in the database exactly once, every balance is right, amcheck finds nothing
//   - no client was disconnected, and no acknowledged increment of redis is lost or doubled
//   - the survivor's disk, after an orderly shutdown, is clean (e2fsck -n)
//   - a VM started from that disk alone says the same again: it is on the disk, not only in the survivor's memory

import { mkdtemp, rm } from 'node:fs/promises';
import { createConnection } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { copyDisk, type DiskGuest } from '../../guest/disk/build.ts';
import type { NodeStatus } from '../api/status.ts';
import { type Clock, delay, wallTime } from '../base/clock.ts';
import { ColoError, errorCodes, errorText } from '../base/errors.ts';
import { seededRandom } from '../base/random.ts';
import { checkSpec, type Spec } from '../config/spec.ts';
import { replicaPath } from '../disk/replica.ts';
import { tryCommand } from '../host/command.ts';
import { freePorts } from '../lan/gateway.ts';
import { LocalPair, replicaDirectory } from '../local/pair.ts';
import { audit, openBank, Teller } from './bank.ts';
import type { Client, ClientReport } from './client.ts';
import { consoleSays } from './console.ts';
import type { DemoView } from './demo.ts';
import { type FaultKind, faultTexts, inject, survivorOf } from './faults.ts';
import { LineClient, redisRules } from './lines.ts';

export interface BankDemoOptions {
  mode: 'colo' | 'remus';
  fault: FaultKind;
  seconds: number;
  verify: boolean;
  flush: 'local' | 'replicated';
  /** Decides the moment of the fault and who pays whom. */
  seed: number;
  /** Checks that a VM started from the survivor's disk alone has it all. */
  reboot: boolean;
  guest: DiskGuest;
  clock: Clock;
  signal: AbortSignal;
  say: (line: string) => void;
  show: (view: DemoView) => void;
}

export interface BankReport {
  ok: boolean;
  mode: string;
  fault: FaultKind;
  seed: number;
  problems: string[];
  clients: ClientReport[];
  transfers: number;
  faultAfterMs: number;
  copyMs: number;
  failover: { detectMs: number; takeoverMs: number; why: string } | null;
  checkpoints: NodeStatus['checkpoints'];
  disks: NodeStatus['disks'];
}

const vmName = 'demo-disk';
const bootTimeoutMs = 120_000;
const protectTimeoutMs = 120_000;
const failoverTimeoutMs = 30_000;
const finishTimeoutMs = 60_000;
const haltTimeoutMs = 60_000;
const tellers = 2;

interface Ports {
  redis: number;
  postgres: number;
  halt: number;
}

interface Stage {
  options: BankDemoOptions;
  spec: Spec;
  pair: LocalPair;
  ports: Ports;
  clients: Client[];
  problems: string[];
}

export async function runBankDemo(options: BankDemoOptions): Promise<BankReport> {
  // Guests' disks are large: a folder of the system's, not the tmpfs where RAM lies.
  const folder = await mkdtemp(join(tmpdir(), 'colo-demo-disk-'));
  try {
    const path = join(folder, 'disk.raw');
    await copyDisk(options.guest, path);
    return await onDisk(options, path, folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function onDisk(options: BankDemoOptions, path: string, folder: string): Promise<BankReport> {
  const spec = checkSpec(
    {
      vm: vmName,
      boot: { guest: 'demo' },
      machine: { memory: '320M' },
      disks: [{ path, format: 'raw', flush: options.flush }],
      replicaFolder: join(folder, 'replica'),
      protect: { mode: options.mode, verify: options.verify },
    },
    'the demo',
  );
  const { pair, ports } = await startPair(options, spec);
  const stage: Stage = { options, spec, pair, ports, clients: [], problems: [] };
  let report: BankReport;
  try {
    report = await story(stage);
    await haltGuest(stage);
  } finally {
    for (const client of stage.clients) client.abort();
    await pair.stop();
  }
  const survivor = survivorOf(options.fault) === 'a' ? path : replicaPath(replicaDirectory(spec, 'b'), 0);
  await checkFileSystem(stage, survivor);
  if (options.reboot && stage.problems.length === 0) await rebootAndAudit(stage, survivor);
  return { ...report, problems: stage.problems, ok: stage.problems.length === 0 };
}

async function startPair(options: BankDemoOptions, spec: Spec): Promise<{ pair: LocalPair; ports: Ports }> {
  const [redis, postgres, halt] = await freePorts(3);
  if (redis === undefined || postgres === undefined || halt === undefined)
    throw new ColoError(errorCodes.host, 'no free ports on 127.0.0.1');
  const { guest, clock, signal } = options;
  const ports = { redis, postgres, halt };
  const forwards = (['redis', 'postgres', 'halt'] as const).map((name) => ({
    protocol: 'tcp' as const,
    hostPort: ports[name],
    guestPort: guest.ports[name],
  }));
  const boot = { kernel: guest.kernel, initrd: guest.initrd, cmdline: guest.cmdline };
  const pair = await LocalPair.start({ spec, boot, clock, forwards });
  try {
    const path = `${pair.logDir}/a.serial`;
    await consoleSays(pair.a, { text: 'colo-guest ready', path, timeoutMs: bootTimeoutMs, signal });
  } catch (error) {
    await pair.stop();
    throw error;
  }
  return { pair, ports };
}

async function story(stage: Stage): Promise<BankReport> {
  const { options, pair, ports, clients, problems } = stage;
  const { clock, say, fault, seed } = options;
  say('the guest runs from its disk: PostgreSQL and redis, every commit flushed');
  await openBank(ports.postgres);
  const copyMs = await protect(stage);
  for (let number = 0; number < tellers; number += 1)
    clients.push(await Teller.start(ports.postgres, { number, seed, paceMs: 10 }, clock));
  clients.push(await LineClient.start(redisRules(ports.redis, 50), clock));
  // The kill comes at a random moment of the middle half.
  const faultAfterMs = options.seconds * 1000 * (0.25 + seededRandom(seed)() * 0.5);
  await watch(stage, faultAfterMs, `clients write; in ${(faultAfterMs / 1000).toFixed(1)} s: ${fault}`);
  const before = await thePrimary(stage);
  for (const client of clients) client.markFault();
  say(faultTexts[fault]);
  const injected = await inject(fault, pair, () => wallTime(clock.now()));
  const after = await theSurvivor(stage);
  await watch(stage, options.seconds * 1000 - faultAfterMs, 'the survivor serves');
  injected.wake();
  say('waiting for the clients to finish, then the database is asked for everything');
  const reports = await Promise.all(clients.map((client) => client.finish(finishTimeoutMs)));
  problems.push(...reports.filter((report) => !report.ok).map((report) => `${report.name}: ${report.detail}`));
  const transfers = await auditInto(stage, ports.postgres);
  const happened = after?.failover ?? null;
  return {
    ...{ ok: false, mode: options.mode, fault, seed, problems, clients: reports, transfers, faultAfterMs, copyMs },
    failover:
      happened === null
        ? null
        : {
            detectMs: happened.detectedAt - injected.at,
            takeoverMs: happened.doneAt - happened.detectedAt,
            why: happened.why,
          },
    checkpoints: before?.checkpoints ?? null,
    disks: before?.disks ?? null,
  };
}

async function protect({ pair, options }: Stage): Promise<number> {
  const { clock, say, signal } = options;
  const start = clock.now();
  await pair.startSecondary();
  await pair.until('protected', protectTimeoutMs, (statuses) => {
    signal.throwIfAborted();
    options.show({ statuses, phase: 'the disk and the RAM are copied', clients: [] });
    return statuses.some((one) => one.role === 'primary' && one.protected);
  });
  say(`protected in ${options.mode} mode (${((clock.now() - start) / 1000).toFixed(1)} s), disk and all`);
  return clock.now() - start;
}

async function watch({ options, pair, clients }: Stage, forMs: number, phase: string): Promise<void> {
  const end = options.clock.now() + forMs;
  while (options.clock.now() < end) {
    options.signal.throwIfAborted();
    const statuses = await pair.statuses();
    options.show({ statuses, phase, clients: clients.map((one) => ({ name: one.name, progress: one.progress() })) });
    await delay(Math.min(250, Math.max(1, end - options.clock.now())), options.clock);
  }
}

/** On a busy host a status may take its time. */
async function thePrimary({ pair }: Stage): Promise<NodeStatus | undefined> {
  const isPrimary = (status: NodeStatus) => status.role === 'primary';
  return (await pair.until('running', finishTimeoutMs, (all) => all.some(isPrimary))).find(isPrimary);
}

async function theSurvivor(stage: Stage): Promise<NodeStatus | undefined> {
  const { options, pair, problems } = stage;
  if (options.fault === 'none') return thePrimary(stage);
  const name = survivorOf(options.fault);
  const isAlone = (status: NodeStatus) => status.node === name && status.role === 'primary' && status.state === 'alone';
  try {
    const statuses = await pair.until(`taken over by node ${name}`, failoverTimeoutMs, (all) => all.some(isAlone));
    return statuses.find(isAlone);
  } catch (error) {
    problems.push(errorText(error));
    return undefined;
  }
}

async function auditInto({ clients, problems }: Stage, port: number): Promise<number> {
  try {
    const found = await audit(
      port,
      clients.filter((client) => client instanceof Teller),
    );
    problems.push(...found.problems);
    return found.transfers;
  } catch (error) {
    problems.push(`the database cannot be asked: ${errorText(error)}`);
    return 0;
  }
}

/** Shuts the guest down in order; before that the survivor's overlay must have become part of its disk. */
async function haltGuest({ pair, options, ports, problems }: Stage): Promise<void> {
  const name = survivorOf(options.fault);
  const folded = (statuses: NodeStatus[]) =>
    statuses.some((one) => one.node === name && (one.disks?.copying ?? null) === null);
  await pair.until('folded', haltTimeoutMs, folded);
  const guest = createConnection({ port: ports.halt, host: '127.0.0.1' });
  guest.on('error', () => undefined);
  guest.on('connect', () => guest.end('halt\n'));
  try {
    // On every node: a guest that switched itself off is not brought back by the other.
    const ended = (statuses: NodeStatus[]) => statuses.every((one) => one.role !== 'primary');
    await pair.until('shut down', haltTimeoutMs, ended);
  } catch (error) {
    problems.push(errorText(error));
  } finally {
    guest.destroy();
  }
}

async function checkFileSystem({ options, problems }: Stage, path: string): Promise<void> {
  // It lies in sbin, which not every user's path has.
  const environment = { PATH: '/usr/sbin:/sbin:/usr/bin:/bin' };
  const result = await tryCommand('e2fsck', ['-f', '-n', path], { environment, timeoutMs: 120_000 });
  if (result.code === 0) options.say("e2fsck: the survivor's disk is clean");
  else problems.push(`e2fsck says ${result.code}: ${(result.failure ?? result.stdout).trim().slice(-400)}`);
}

/** A VM that has nothing but the survivor's disk. */
async function rebootAndAudit(stage: Stage, path: string): Promise<void> {
  const { options, problems } = stage;
  const spec: Spec = {
    ...stage.spec,
    vm: `${vmName}-again`,
    disks: [{ path, format: 'raw', flush: 'local' }],
    protect: { ...stage.spec.protect, mode: 'none' },
  };
  const again = await startPair(options, spec);
  try {
    const transfers = await auditInto(stage, again.ports.postgres);
    if (problems.length === 0) options.say(`a VM started from that disk alone has all ${transfers} transfers`);
  } finally {
    await again.pair.stop();
  }
}
