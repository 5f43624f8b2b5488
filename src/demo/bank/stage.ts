// What the stories of the bank stand on: the disk guest in a protected pair, its ports, and what it does when told to.

import { readFile } from 'node:fs/promises';
import { createConnection, type Socket } from 'node:net';
import { join } from 'node:path';
import { copyDisk, type DiskGuest } from '../../../guest/disk/build.ts';
import type { NodeStatus } from '../../api/node-status.ts';
import { type Clock, delay } from '../../base/clock.ts';
import { ColoError, errorCodes, errorText } from '../../base/errors.ts';
import { checkSpec, type Spec } from '../../config/spec.ts';
import { replicaPath } from '../../disk/replica-files.ts';
import { tryCommand } from '../../host/command.ts';
import { freePorts } from '../../lan/gateway.ts';
import { LocalPair, replicaDirectory } from '../../local/pair.ts';
import type { LoginPlace } from '../clients/login.ts';
import { consoleSays } from '../console.ts';
import type { DemoView, Scene } from '../demo.ts';
import type { FaultKind } from '../faults.ts';
import { audit, Teller } from './bank.ts';

export interface BankDemoOptions {
  /** Name of the VM. */
  name: string;
  mode: 'colo' | 'remus';
  fault: FaultKind;
  seconds: number;
  /** More than one: the primary's node is killed, comes back as the secondary, and again, this often. */
  failovers: number;
  verify: boolean;
  flush: 'local' | 'replicated';
  /** Decides the moments of the faults and who pays whom. */
  seed: number;
  /** Checks that a VM started from the survivor's disk alone has it all. */
  reboot: boolean;
  /** A session over SSH as well: needs Debian's client on this host. */
  login?: boolean;
  guest: DiskGuest;
  clock: Clock;
  signal: AbortSignal;
  say: (line: string) => void;
  show: (view: DemoView) => void;
}

export interface Ports {
  redis: number;
  postgres: number;
  ssh: number;
  control: number;
}

export interface Stage extends Scene {
  options: BankDemoOptions;
  spec: Spec;
  /** For what belongs to this run alone; gone with it. */
  folder: string;
  ports: Ports;
  /** Every teller there was: what all of them wrote down must be in the database. */
  tellers: Teller[];
  /** Acknowledged increments of the counter in redis. */
  increments: number;
  problems: string[];
}

/** Generous: a host may be starved, and nobody waits for longer than it takes. */
const bootTimeoutMs = 240_000;
const protectTimeoutMs = 180_000;
const guestTimeoutMs = 180_000;
const tellAgainMs = 10_000;

/** A spec for a copy of the guest's disk in `folder`. */
export async function bankSpec(options: BankDemoOptions, folder: string): Promise<Spec> {
  const path = `${folder}/disk.raw`;
  await copyDisk(options.guest, path);
  return checkSpec(
    {
      vm: options.name,
      boot: { guest: 'demo' },
      machine: { memory: '320M' },
      disks: [{ path, format: 'raw', flush: options.flush }],
      replicaFolder: `${folder}/replica`,
      protect: { mode: options.mode, verify: options.verify },
    },
    'the demo',
  );
}

/** The guest runs, unprotected, and its services answer. */
export async function openStage(options: BankDemoOptions, spec: Spec, folder: string): Promise<Stage> {
  const [redis, postgres, ssh, control] = await freePorts(4);
  if (redis === undefined || postgres === undefined || ssh === undefined || control === undefined)
    throw new ColoError(errorCodes.host, 'no free ports on 127.0.0.1');
  const { guest, clock, signal } = options;
  const ports = { redis, postgres, ssh, control };
  const forwards = (['redis', 'postgres', 'ssh', 'control'] as const).map((name) => ({
    protocol: 'tcp' as const,
    hostPort: ports[name],
    guestPort: guest.ports[name],
  }));
  const boot = { kernel: guest.kernel, initrd: guest.initrd, cmdline: guest.cmdline };
  const pair = await LocalPair.start({ spec, boot, clock, forwards, signal });
  try {
    const path = `${pair.logDir}/a.serial`;
    await consoleSays(pair.a, { text: 'colo-guest ready', path, timeoutMs: bootTimeoutMs, signal });
  } catch (error) {
    await pair.stop();
    throw error;
  }
  return { options, spec, folder, pair, ports, clients: [], tellers: [], increments: 0, problems: [] };
}

/** Ends the clients, the nodes and the guest. */
export async function closeStage(stage: Stage): Promise<void> {
  for (const client of stage.clients) client.abort();
  await stage.pair.stop();
}

/** Waits until the VM is protected; returns how long that took. */
export async function untilProtected(stage: Stage, phase: string): Promise<number> {
  const { options, pair, clients } = stage;
  const start = options.clock.now();
  await pair.until('protected', protectTimeoutMs, (statuses) => {
    options.signal.throwIfAborted();
    options.show({ statuses, phase, clients: clients.map((one) => ({ name: one.name, progress: one.progress() })) });
    return statuses.some((one) => one.role === 'primary' && one.protected);
  });
  return options.clock.now() - start;
}

/** The file that is the guest's disk when node `name` runs it; node a has the image until it lost the guest once. */
export function diskPath({ spec }: Stage, name: 'a' | 'b', hasFailedOver: boolean): string {
  const image = name === 'a' && !hasFailedOver ? spec.disks[0]?.path : undefined;
  return image ?? replicaPath(replicaDirectory(spec, name), 0);
}

/** Asks database and counter for everything, and compares it with what the clients wrote down. */
export async function auditInto({ tellers, increments, problems }: Stage, ports: Ports): Promise<number> {
  try {
    const found = await audit(ports.postgres, tellers);
    const counter = await redisCounter(ports.redis);
    if (counter !== increments) problems.push(`redis counted ${counter}, and acknowledged ${increments} increments`);
    problems.push(...found.problems);
    return found.transfers;
  } catch (error) {
    problems.push(`the guest cannot be asked: ${errorText(error)}`);
    return 0;
  }
}

/** The value of the counter that the redis client increments. */
async function redisCounter(port: number): Promise<number> {
  const socket = createConnection({ port, host: '127.0.0.1' });
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  let text = '';
  socket.setTimeout(guestTimeoutMs, () => reject(new Error('redis does not answer')));
  socket.on('error', reject);
  socket.on('close', () => reject(new Error('redis closed the connection')));
  socket.on('data', (chunk: Buffer) => {
    text += chunk.toString('latin1');
    const value = /^\$(-1|\d+\r\n(\d+))\r\n/.exec(text);
    if (value !== null) resolve(Number(value[2] ?? 0));
    else if (text.startsWith('-')) reject(new Error(text.trim()));
  });
  socket.write('*2\r\n$3\r\nGET\r\n$12\r\ncolo-counter\r\n');
  try {
    return await promise;
  } finally {
    socket.destroy();
  }
}

/** How the guest is logged in to. */
export function loginPlace({ options, ports, folder }: Stage): LoginPlace {
  const { loginKeyPath, sshHostKey } = options.guest;
  return { port: ports.ssh, keyPath: loginKeyPath, hostKey: sshHostKey, knownPath: join(folder, 'known-hosts') };
}

/** A line to the guest's port 9 (guest/disk/rootfs/init). */
function tell({ ports }: Stage, line: string): Socket {
  const guest = createConnection({ port: ports.control, host: '127.0.0.1' });
  guest.on('error', () => undefined);
  guest.on('connect', () => guest.end(`${line}\n`));
  return guest;
}

/**
 * Tells the guest, until its console says that it is done: between two lines nobody listens for a moment. The console
 * is the primary's, whichever node that is: a starved host may take over from one that is only slow.
 */
export async function tellAndHear(stage: Stage, line: string, answer: string): Promise<void> {
  const { pair, options } = stage;
  const connections = [tell(stage, line)];
  const stop = options.clock.every(tellAgainMs, () => void connections.push(tell(stage, line)));
  const end = options.clock.now() + guestTimeoutMs;
  const consoleOf = (name: string) => readFile(join(pair.logDir, `${name}.serial`), 'utf8').catch(() => '');
  try {
    for (;;) {
      options.signal.throwIfAborted();
      const name = await holderOf(stage);
      const said = await consoleOf(name);
      if (said.includes(answer)) return;
      if (options.clock.now() > end) {
        const last = said.trim().split('\n').slice(-4).join(' / ');
        throw new ColoError(errorCodes.timeout, `the guest on ${name} was told "${line}" and says only "${last}"`);
      }
      await delay(100, options.clock);
    }
  } finally {
    stop();
    for (const connection of connections) connection.destroy();
  }
}

/** The node that runs the guest for everybody. */
export async function holderOf({ pair }: Stage): Promise<'a' | 'b'> {
  const isHolder = (one: NodeStatus) => one.role === 'primary';
  const statuses = await pair.until('run by somebody', guestTimeoutMs, (all) => all.some(isHolder));
  return statuses.find(isHolder)?.node === 'a' ? 'a' : 'b';
}

export function otherOf(name: 'a' | 'b'): 'a' | 'b' {
  return name === 'a' ? 'b' : 'a';
}

/** Shuts the guest down in order; before that the survivor's overlay must have become part of its disk. */
export async function haltGuest(stage: Stage, name: 'a' | 'b'): Promise<void> {
  const { pair, options, problems } = stage;
  const folded = (statuses: NodeStatus[]) =>
    statuses.some((one) => one.node === name && (one.disks?.copying ?? null) === null);
  await pair.until('folded', guestTimeoutMs, folded);
  // Again until it is heard: between two lines nobody listens for a moment.
  const connections = [tell(stage, 'halt')];
  const stop = options.clock.every(tellAgainMs, () => void connections.push(tell(stage, 'halt')));
  try {
    // The node says so: one that does not answer is starved, and its guest may still be writing. And on every node: a
    // guest that switched itself off is not brought back by the other.
    const ended = (statuses: NodeStatus[]) =>
      statuses.some((one) => one.node === name && one.role === 'stopped') &&
      statuses.every((one) => one.role !== 'primary');
    await pair.until('shut down', guestTimeoutMs, ended);
  } catch (error) {
    problems.push(errorText(error));
  } finally {
    stop();
    for (const connection of connections) connection.destroy();
  }
}

/** A disk that nobody writes to; false when it is not clean. */
export async function checkFileSystem({ problems }: Stage, path: string): Promise<boolean> {
  // It lies in sbin, which not every user's path has.
  const environment = { PATH: '/usr/sbin:/sbin:/usr/bin:/bin' };
  const result = await tryCommand('e2fsck', ['-f', '-n', path], { environment, timeoutMs: 120_000 });
  if (result.code === 0) return true;
  problems.push(`e2fsck says ${result.code}: ${(result.failure ?? result.stdout).trim().slice(-400)}`);
  return false;
}

/** A VM that has nothing but this disk. */
export async function rebootAndAudit(stage: Stage, path: string): Promise<void> {
  const { options, problems } = stage;
  const spec: Spec = {
    ...stage.spec,
    vm: `${options.name}-again`,
    disks: [{ path, format: 'raw', readonly: false, cdrom: false, flush: 'local' }],
    // The other folder says that the newest disks are in it, and so they are: nothing else may start from them.
    replicaFolder: `${stage.spec.replicaFolder}-again`,
    protect: { ...stage.spec.protect, mode: 'none' },
  };
  const again = await openStage(options, spec, stage.folder);
  try {
    const transfers = await auditInto(stage, again.ports);
    if (problems.length > 0) return;
    options.say(`a VM started from that disk alone has all ${transfers} transfers and ${stage.increments} increments`);
  } finally {
    await closeStage(again);
  }
}
