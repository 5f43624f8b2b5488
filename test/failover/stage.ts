// The stage of the failover tests: a real pair with the demo guest, and clients that check every reply. Each test names
// its own VM, so that a run that a person has started is not disturbed.
//
// On a starved host a node may suspect its peer wrongly at any time: then it goes on alone, or takes over, and the VM
// is protected again a moment later. So a test asks for roles and not for names, strikes a VM that is protected in that
// very moment (`strike`), and counts voices against the owners that the arbiter recorded (`expectOneVoice`).

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { buildBareGuest } from '../../guest/bare/build.ts';
import { barePorts } from '../../guest/bare/guest.ts';
import { downloadSha256 } from '../../guest/big-file.ts';
import { buildGuest } from '../../guest/build.ts';
import { callNode } from '../../src/api/node-client.ts';
import type { NodeStatus } from '../../src/api/node-status.ts';
import { FolderArbiter } from '../../src/arbiter/folder.ts';
import { delay, systemClock } from '../../src/base/clock.ts';
import { errorText } from '../../src/base/errors.ts';
import { checkSpec, type SpecInput } from '../../src/config/spec.ts';
import type { Client, ClientReport } from '../../src/demo/clients/client.ts';
import { startClient } from '../../src/demo/clients/clients.ts';
import { DatagramClient } from '../../src/demo/clients/datagrams.ts';
import { DownloadClient } from '../../src/demo/clients/download.ts';
import { echoRules, LineClient, redisRules } from '../../src/demo/clients/lines.ts';
import { RegisterClient } from '../../src/demo/clients/register.ts';
import { consoleSays } from '../../src/demo/console.ts';
import { applyProblems, verified } from '../../src/demo/demo.ts';
import type { FaultKind } from '../../src/demo/faults.ts';
import { bareDemoGuest, type DemoGuest, linuxGuest } from '../../src/demo/guest.ts';
import { type Forward, freePorts } from '../../src/lan/gateway.ts';
import { describeTurns, withoutLate } from '../../src/lan/turns.ts';
import { runDirectory } from '../../src/local/directories.ts';
import type { NodeProcess } from '../../src/local/node-process.ts';
import { LocalPair, type PairOptions } from '../../src/local/pair.ts';
import { untilSays } from './ask.ts';

export type NodeName = 'a' | 'b';

export interface Roles {
  primary: NodeName;
  secondary: NodeName;
  term: number;
}

export interface Stage {
  vm: string;
  pair: LocalPair;
  mac: string;
  /** Ports of this machine, behind which the guest's services are. */
  ports: { redis: number; echo: number; dirty: number; commands?: number };
  clients: Client[];
  /** What the two copies never answer alike. */
  storm: Storm;
  /** Calls the guest anew, with clients in the place of those that have finished. */
  callAgain(): Promise<void>;
  /** Takes a checkpoint and waits for it; rejects when the primary is gone. */
  checkpointAt(node: NodeName): Promise<unknown>;
  /** Ends the clients; every one must have seen exactly what it had to see. */
  finish(): Promise<ClientReport[]>;
  close(): Promise<void>;
}

/** A question at a port to which the two copies never have one answer, and how many answers a text has. */
export interface Storm {
  port: number;
  question: string;
  answersIn: (text: string) => number;
}

/** The file that is downloaded over and over, and how fast: a load beside the others, not instead of them. */
const bigMebibytes = 4;
const downloadBytesPerSecondMax = 2 << 20;
/** What counts as a reply in a download. */
const downloadReplyBytes = 16 << 10;
const bootTimeoutMs = 180_000;
const protectTimeoutMs = 180_000;
const changeTimeoutMs = 120_000;

/** Which guest is on the stage, what of it is forwarded, and who talks to it. */
interface Cast {
  guest: DemoGuest;
  ports: Stage['ports'];
  forwards: Forward[];
  callers: (() => Promise<Client>)[];
  storm: Storm;
  /** Makes the guest what the clients take it for when they begin. */
  forget: () => Promise<void>;
}

async function demoCast(): Promise<Cast> {
  const guest = await buildGuest();
  const [redis = 0, echo = 0, udp = 0, dirty = 0, http = 0] = await freePorts(5);
  const files = {
    ...{ port: http, path: guest.files.downloadPath, bytes: bigMebibytes << 20 },
    ...{ sha256: downloadSha256(bigMebibytes), bytesPerSecondMax: downloadBytesPerSecondMax },
  };
  const linux = linuxGuest(guest);
  return {
    guest: { ...linux, boot: { ...linux.boot, cmdline: `${guest.cmdline} colo.big=${bigMebibytes}` } },
    ports: { redis, echo, dirty },
    storm: {
      port: redis,
      question: '*1\r\n$4\r\nTIME\r\n',
      answersIn: (text) => text.split('*2').length - 1,
    },
    forget: () => untilSays(redis, '*1\r\n$8\r\nFLUSHALL\r\n', '+OK\r\n'),
    forwards: [
      { protocol: 'tcp', hostPort: redis, guestPort: guest.ports.redis },
      { protocol: 'tcp', hostPort: echo, guestPort: guest.ports.echoTcp },
      { protocol: 'udp', hostPort: udp, guestPort: guest.ports.echoUdp },
      { protocol: 'tcp', hostPort: dirty, guestPort: guest.ports.dirty },
      { protocol: 'tcp', hostPort: http, guestPort: guest.ports.http },
    ],
    callers: [
      () => LineClient.start(redisRules(redis), systemClock),
      () => LineClient.start(echoRules(echo), systemClock),
      () => RegisterClient.start(redis, systemClock),
      () => DatagramClient.start({ port: udp }, systemClock),
      () => DownloadClient.start(files, systemClock),
    ],
  };
}

/** The bare guest and all its clients. */
async function bareCast(): Promise<Cast> {
  const guest = bareDemoGuest(await buildBareGuest());
  const { forwarded } = guest.served;
  const [commands = 0, ...hostPorts] = await freePorts(1 + forwarded.length);
  const forwards = forwarded.map((one, index): Forward => ({ ...one, hostPort: hostPorts[index] ?? 0 }));
  forwards.push({ protocol: 'udp', guestPort: barePorts.commands, hostPort: commands });
  const callers = guest.served.gateway(hostPorts).map((wanted) => () => startClient(wanted, systemClock));
  const times = forwards.find(({ guestPort }) => guestPort === barePorts.timesTcp) ?? assert.fail();
  return {
    ports: { redis: 0, echo: 0, dirty: 0, commands },
    storm: { port: times.hostPort, question: 'time\n', answersIn: (text) => text.split('\n').length - 1 },
    forget: async () => undefined,
    ...{ guest, forwards, callers },
  };
}

export async function setStage(options: {
  vm: string;
  guest?: 'demo' | 'bare';
  disks?: SpecInput['disks'];
  /** A new one: what an earlier run left there would be kept. */
  replicaFolder?: string;
  protect?: SpecInput['protect'];
  machine?: SpecInput['machine'];
  reachAt?: PairOptions['reachAt'];
  placesAt?: PairOptions['placesAt'];
  /** `network.pcap` of the spec. */
  pcap?: string;
}): Promise<Stage> {
  const { guest, ports, forwards, callers, storm, forget } = await (options.guest === 'bare' ? bareCast() : demoCast());
  const spec = checkSpec(
    {
      vm: options.vm,
      boot: { guest: guest.kind },
      machine: { ...guest.machine, ...options.machine },
      disks: options.disks ?? [],
      ...(options.replicaFolder === undefined ? {} : { replicaFolder: options.replicaFolder }),
      protect: { verify: true, ...options.protect },
      ...(options.pcap === undefined ? {} : { network: { pcap: options.pcap } }),
    },
    'the test',
  );
  const pair = await LocalPair.start({
    spec,
    boot: guest.boot,
    clock: systemClock,
    forwards,
    armable: true,
    ...(options.reachAt === undefined ? {} : { reachAt: options.reachAt }),
    ...(options.placesAt === undefined ? {} : { placesAt: options.placesAt }),
  });
  const clients: Client[] = [];
  const checkpointAt = (node: 'a' | 'b') =>
    callNode({ socketPath: pair[node]?.apiPath ?? '', method: 'POST', path: '/checkpoint', timeoutMs: 120_000 });
  const close = async () => {
    for (const client of clients) client.abort();
    await pair.stop();
  };
  const call = async () => {
    for (const one of callers) clients.push(await one());
  };
  const callAgain = async () => {
    await forget();
    clients.length = 0;
    await call();
  };
  try {
    await consoleSays(pair.a, { text: guest.readyLine, path: pair.serialLog('a'), timeoutMs: bootTimeoutMs });
    await call();
    return {
      vm: options.vm,
      pair,
      mac: spec.network.mac,
      ports,
      clients,
      storm,
      callAgain,
      checkpointAt,
      finish: () => Promise.all(clients.map((client) => client.finish(120_000))),
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

/** Starts the secondary and waits until the VM is protected. */
export async function protect(stage: Stage): Promise<void> {
  await stage.pair.startSecondary();
  await roles(stage);
}

/** Waits until the VM is protected, and tells by whom. */
export async function roles(stage: Stage): Promise<Roles> {
  const primaryOf = (all: NodeStatus[]) => all.find((one) => one.role === 'primary' && one.protected);
  const all = await stage.pair.until('protected', protectTimeoutMs, (seen) => primaryOf(seen) !== undefined);
  const { node, term } = primaryOf(all) ?? assert.fail();
  return node === 'a' ? { primary: 'a', secondary: 'b', term } : { primary: 'b', secondary: 'a', term };
}

export function nodeOf(stage: Stage, name: NodeName): NodeProcess {
  return stage.pair[name] ?? assert.fail(`node ${name} was not started`);
}

/** A node that stands still while its VM is protected, at `term`. */
export interface Held extends Roles {
  name: NodeName;
  node: NodeProcess;
  qemuPid: number;
  signalQemu: (name: NodeJS.Signals) => void;
}

/**
 * Stops the colod of the VM's primary or secondary in a moment in which the VM is protected: it changes the arbiter's
 * record no more then, and whatever is done to it now the other one can answer.
 */
export async function hold(stage: Stage, role: 'primary' | 'secondary'): Promise<Held> {
  const arbiter = await FolderArbiter.open(join(runDirectory(stage.vm), 'arbiter'));
  const deadline = systemClock.now() + protectTimeoutMs;
  for (;;) {
    const now = await roles(stage);
    const node = nodeOf(stage, now[role]);
    // It may be giving its QEMU up just now.
    const signalQemu = await node.holdQemu().catch(() => undefined);
    const qemuPid = await node.findQemu().catch(() => 0);
    node.signal('SIGSTOP');
    while (node.alive && !node.isStopped()) await delay(1);
    if (signalQemu !== undefined && qemuPid > 0 && (await arbiter.read(stage.vm))?.term === now.term)
      return { ...now, name: now[role], node, qemuPid, signalQemu };
    node.signal('SIGCONT');
    assert.ok(systemClock.now() < deadline, 'the VM does not stay protected');
  }
}

export interface Struck {
  /** Who has to go on, and what the fault was done to. */
  survivor: NodeName;
  struck: NodeName;
  /** Undoes a stop. */
  wake: () => void;
}

/** Does it to a VM that is protected, as src/demo/faults.ts tells. */
export async function strike(stage: Stage, fault: FaultKind): Promise<Struck> {
  const isPrimary = fault !== 'secondary-kill';
  const { node, signalQemu, name, primary, secondary } = await hold(stage, isPrimary ? 'primary' : 'secondary');
  if (fault === 'primary-stop') signalQemu('SIGSTOP');
  else if (fault === 'primary-qemu-kill') {
    signalQemu('SIGKILL');
    node.signal('SIGCONT');
  } else {
    node.signal('SIGKILL');
    signalQemu('SIGKILL');
  }
  const wake = () => {
    signalQemu('SIGCONT');
    node.signal('SIGCONT');
  };
  return { survivor: isPrimary ? secondary : primary, struck: name, wake: fault === 'primary-stop' ? wake : () => {} };
}

/** Stops the QEMU of one node of a protected VM; its colod runs on. */
export async function hang(stage: Stage, role: 'primary' | 'secondary'): Promise<Held> {
  const held = await hold(stage, role);
  held.signalQemu('SIGSTOP');
  held.node.signal('SIGCONT');
  return held;
}

/**
 * Takes a checkpoint of the protected VM. A starved host may lose the protection meanwhile: then it is waited for
 * again.
 */
export async function checkpoint(stage: Stage): Promise<void> {
  for (const deadline = systemClock.now() + protectTimeoutMs; ; ) {
    const { primary, term } = await roles(stage);
    try {
      await stage.checkpointAt(primary);
      return;
    } catch (error) {
      // Refused while nothing has changed: that is wrong.
      if (systemClock.now() > deadline || (await roles(stage)).term === term) throw error;
    }
  }
}

/**
 * Asks the primary of the protected VM to hand it over; resolves to who has it then. A secondary that a starved host
 * lets stand still for the moment in which it may take the term does not get it, and its primary goes on: then it is
 * asked again.
 */
export async function handOver(stage: Stage): Promise<NodeName> {
  for (const deadline = systemClock.now() + protectTimeoutMs; ; ) {
    const { primary, secondary, term } = await roles(stage);
    const socketPath = nodeOf(stage, primary).apiPath;
    try {
      await callNode({ socketPath, method: 'POST', path: '/failover', timeoutMs: changeTimeoutMs });
    } catch (error) {
      if ((await roles(stage)).term === term) throw error;
      continue;
    }
    await over(stage, term);
    if (stage.pair.owners.turns.at(-1) === secondary) return secondary;
    assert.ok(systemClock.now() < deadline, `${secondary} never takes over from ${primary}`);
  }
}

/** Waits until the protection of `term` is over: one node went on alone, or has taken over. */
export async function over(stage: Stage, term: number): Promise<void> {
  await stage.pair.until(`over with term ${term}`, changeTimeoutMs, (all) =>
    all.some((one) => one.role === 'primary' && one.term > term),
  );
}

/** One that asks seldom need not have as many: a tenth will do. */
const seldom = 'times';

/** Waits until every client has got so many further replies. */
export async function served(stage: Stage, replies: number): Promise<void> {
  const repliesOf = (client: Client) =>
    client instanceof DownloadClient
      ? Math.floor(client.bytes / downloadReplyBytes)
      : Number.parseInt(client.progress(), 10);
  const wanted = stage.clients.map((client) => {
    const more = client.name === seldom ? Math.ceil(replies / 10) : replies;
    return { client, count: repliesOf(client) + more };
  });
  const missing = () => wanted.filter(({ client, count }) => repliesOf(client) < count);
  try {
    await stage.pair.until('serving', changeTimeoutMs, () => missing().length === 0);
  } catch (error) {
    const names = missing().map(({ client }) => client.name);
    assert.fail(`${errorText(error)}; still waiting: ${names.join(', ')}`);
  }
}

/** Waits until `node` is the primary after a change of who runs the VM. */
export function survives(stage: Stage, node: NodeName): Promise<NodeStatus[]> {
  return stage.pair.until(`taken over by ${node}`, changeTimeoutMs, (all) =>
    all.some((one) => one.node === node && one.role === 'primary' && one.failover !== null),
  );
}

/**
 * Ends the clients; every one has seen exactly what it had to see. And with `verify`, which is on unless a test says
 * otherwise, no node that lives has found a difference after an apply.
 */
export async function expectClients(stage: Stage): Promise<void> {
  assert.deepEqual(applyProblems(verified(await stage.pair.statuses())), []);
  for (const report of await stage.finish()) assert.equal(report.ok, true, `${report.name}: ${report.detail}`);
}

/** One turn of speaking for each owner that the arbiter has recorded, in whose time no other node spoke. */
export function expectOneVoice(stage: Stage): void {
  const owners = stage.pair.owners.turns;
  const told = `${owners.join(', ')} owned the VM, and it spoke: ${describeTurns(stage.pair.lan.spokenBy(stage.mac))}`;
  assert.equal(voices(stage).length, owners.length, told);
}

/** The ports of the switch from which the guest's address spoke, one entry for each turn; what left late is none. */
export function voices(stage: Stage): number[] {
  return withoutLate(stage.pair.lan.spokenBy(stage.mac)).turns.map(({ port }) => port);
}
