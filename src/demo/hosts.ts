// The story of several hosts: a VM is protected in a cluster, one host dies with everything on it, another one's cable
// is pulled, and each time the next host takes over and finds itself a new secondary, without being asked. The clients
// stand in a network namespace of their own, and a capture at the ports of the bridge shows who spoke for the guest.
//
//   h1 primary, h2 secondary, h3 candidate
//   h1 dies          ──► h2 takes over, protected by h3;  h1 boots again as a candidate
//   h2 is cut off    ──► h3 takes over, protected by h1;  h2 comes back, has lost its term, and is a candidate

import type { Guest } from '../../guest/build.ts';
import { readyLine } from '../../guest/recipe.ts';
import type { NodeStatus } from '../api/node-status.ts';
import { type Clock, delay, wallTime } from '../base/clock.ts';
import { checkSpec } from '../config/spec.ts';
import { LocalCluster } from '../lab/vm-nodes.ts';
import type { Client, ClientReport } from './clients/client.ts';
import { DatagramClient } from './clients/datagrams.ts';
import { DownloadClient } from './clients/download.ts';
import { echoRules, LineClient, redisRules } from './clients/lines.ts';
import { consoleSays } from './console.ts';
import type { DemoView } from './demo.ts';

export interface HostsOptions {
  /** Name of the VM. */
  name: string;
  mode: 'colo' | 'remus';
  hosts: number;
  /** How long the clients run between two events. */
  seconds: number;
  guest: Guest;
  clock: Clock;
  signal: AbortSignal;
  say: (line: string) => void;
  show: (view: DemoView) => void;
}

export interface HostsReport {
  ok: boolean;
  problems: string[];
  clients: ClientReport[];
  /** Hosts that spoke for the guest, in turn, as heard at the bridge. */
  voices: string[];
  events: { what: string; takeoverMs: number; protectedAgainMs: number }[];
}

const bootTimeoutMs = 180_000;
const stateTimeoutMs = 180_000;
const finishTimeoutMs = 120_000;

/** What the story works with. */
interface Cast {
  options: HostsOptions;
  cluster: LocalCluster;
  clients: Client[];
  /** Hosts that the VM was seen to belong to, in turn. */
  owners: string[];
}

export async function runHostsDemo(options: HostsOptions): Promise<HostsReport> {
  const { guest, clock, say, signal } = options;
  const spec = checkSpec({ vm: options.name, boot: { guest: 'demo' }, protect: { mode: options.mode } }, 'the demo');
  const boot = { kernel: guest.kernel, initrd: guest.initrd, cmdline: guest.cmdline };
  const cluster = await LocalCluster.start({ spec, boot, hosts: options.hosts, clock });
  const clients: Client[] = [];
  try {
    say(`${options.hosts} hosts as namespaces on a bridge, an etcd with a member on each, TLS between them`);
    const path = cluster.serialLog('h1');
    await consoleSays(cluster.node('h1'), { text: readyLine, path, timeoutMs: bootTimeoutMs, signal });
    say('the guest runs on h1');
    await cluster.startCandidates();
    const cast: Cast = { options, cluster, clients, owners: ['h1'] };
    const { primary, secondary } = await roles(cast);
    say(`protected: ${primary} is the primary, ${secondary} the secondary`);
    await startClients(clients, { guest, clock, host: spec.network.address });
    return await story(cast);
  } finally {
    for (const client of clients) client.abort();
    await cluster.stop();
  }
}

async function startClients(
  clients: Client[],
  { guest, clock, host }: { guest: Guest; clock: Clock; host: string },
): Promise<void> {
  const { downloadPath, downloadBytes, downloadSha256 } = guest.files;
  const file = { host, port: guest.ports.http, path: downloadPath, bytes: downloadBytes, sha256: downloadSha256 };
  clients.push(await DownloadClient.start(file, clock));
  clients.push(await LineClient.start({ ...redisRules(guest.ports.redis), host }, clock));
  clients.push(await LineClient.start({ ...echoRules(guest.ports.echoTcp), host }, clock));
  clients.push(await DatagramClient.start({ host, port: guest.ports.echoUdp }, clock));
}

async function story(cast: Cast): Promise<HostsReport> {
  const { options, cluster, clients } = cast;
  const { say } = options;
  const events: HostsReport['events'] = [];
  const watched = options.seconds * 1000;
  await watch(cast, watched, 'clients run');
  for (const client of clients) client.markFault();
  const first = await roles(cast);
  say(`${first.primary} dies: its node, its QEMU and its member of etcd, all at once`);
  const dies = `${first.primary} dies`;
  events.push(await takeover(cast, dies, first.secondary, () => cluster.killHost(first.primary)));
  await cluster.restartHost(first.primary);
  say(`${first.primary} boots again, and is a candidate`);
  await watch(cast, watched, `${first.secondary} serves`);
  const { primary: cut, secondary: next } = await roles(cast);
  say(`the cable of ${cut} is pulled`);
  events.push(await takeover(cast, `${cut} is cut off`, next, () => cluster.setLink(cut, false)));
  await cluster.setLink(cut, true);
  say(`the cable of ${cut} is back; it must find out that its term is over`);
  const isCandidate = (one: NodeStatus) => one.node === cut && one.role === 'secondary';
  await cluster.until(`${cut} a candidate`, stateTimeoutMs, (all) => isOver(cast) || all.some(isCandidate));
  await watch(cast, watched, `${next} serves`);
  await roles(cast);
  say('waiting for the clients to finish');
  const reports = await finish(cast);
  const voices = cluster.voices();
  const problems = reports.filter((one) => !one.ok).map((one) => `${one.name}: ${one.detail}`);
  const { owners } = cast;
  if (voices.join() !== owners.join())
    problems.push(`the guest's address was heard from ${voices.join(', ')}, not from ${owners.join(', ')}`);
  return { ok: problems.length === 0, problems, clients: reports, voices, events };
}

/** Does it to the primary, and waits until `heir` serves and is protected again. */
async function takeover(
  cast: Cast,
  what: string,
  heir: string,
  act: () => Promise<void>,
): Promise<HostsReport['events'][number]> {
  const { clock, say } = cast.options;
  const start = clock.now();
  const startedAt = wallTime(start);
  await act();
  const isHeir = (one: NodeStatus) =>
    one.node === heir && one.role === 'primary' && (one.failover?.doneAt ?? 0) >= startedAt;
  const statuses = await cast.cluster.until(
    `taken over by ${heir}`,
    stateTimeoutMs,
    (all) => isOver(cast) || all.some(isHeir),
  );
  const takeoverMs = (statuses.find(isHeir)?.failover?.doneAt ?? startedAt) - startedAt;
  say(`${heir} has taken over after ${takeoverMs.toFixed(0)} ms`);
  note(cast, heir);
  const { secondary } = await roles(cast);
  const protectedAgainMs = clock.now() - start;
  say(`protected again after ${(protectedAgainMs / 1000).toFixed(1)} s: ${secondary} is the secondary`);
  return { what, takeoverMs, protectedAgainMs };
}

/** Waits until the VM is protected, and tells by whom. A starved host may have turned it round. */
async function roles(cast: Cast): Promise<{ primary: string; secondary: string }> {
  const nameOf = (all: NodeStatus[], role: string) => all.find((one) => one.role === role && one.protected)?.node ?? '';
  const holds = (all: NodeStatus[]) =>
    isOver(cast) || (nameOf(all, 'primary') !== '' && nameOf(all, 'secondary') !== '');
  const all = await cast.cluster.until('protected', stateTimeoutMs, holds);
  cast.options.signal.throwIfAborted();
  note(cast, nameOf(all, 'primary'));
  return { primary: nameOf(all, 'primary'), secondary: nameOf(all, 'secondary') };
}

function note({ owners }: Cast, owner: string): void {
  if (owners.at(-1) !== owner) owners.push(owner);
}

function isOver({ options }: Cast): boolean {
  return options.signal.aborted;
}

/** Shows the state of things for a while. */
async function watch({ options, cluster, clients }: Cast, forMs: number, phase: string): Promise<void> {
  const { clock, signal, show } = options;
  const end = clock.now() + forMs;
  while (clock.now() < end) {
    signal.throwIfAborted();
    const statuses = await cluster.statuses();
    show({ statuses, phase, clients: clients.map((one) => ({ name: one.name, progress: one.progress() })) });
    await delay(Math.min(250, Math.max(1, end - clock.now())), clock);
  }
}

async function finish(cast: Cast): Promise<ClientReport[]> {
  let done = false;
  const all = Promise.all(cast.clients.map((client) => client.finish(finishTimeoutMs))).finally(() => {
    done = true;
  });
  while (!done) {
    await Promise.race([all, watch(cast, 250, 'the clients finish')]);
    cast.options.signal.throwIfAborted();
  }
  return all;
}
