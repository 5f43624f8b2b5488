// The main job, end to end: a real guest is protected, real clients talk to it, its primary is taken away, and no
// client notices. What happened is returned as a report; `ok` is true only if every client saw exactly what it had to
// see and exactly one node spoke for the guest at any time.

import { cpus } from 'node:os';
import type { NodeStatus } from '../api/node-status.ts';
import { type Clock, delay, wallTime } from '../base/clock.ts';
import { checkSpec, type Spec, type SpecInput } from '../config/spec.ts';
import { describeTurns, type Turn, withoutLate } from '../lan/turns.ts';
import { LocalPair } from '../local/pair.ts';
import type { TrackerKind } from '../qemu/dirty/tracker.ts';
import type { Client, ClientReport } from './clients/client.ts';
import { type Entrance, type EntranceKind, openEntrance } from './clients/entrance.ts';
import { consoleSays } from './console.ts';
import { type FaultKind, faultTexts, injectInto, type Parts, partsOf } from './faults.ts';
import type { DemoGuest } from './guest.ts';

export interface DemoOptions {
  /** Name of the VM. */
  name: string;
  mode: 'colo' | 'remus' | 'none';
  fault: FaultKind;
  /** How long the clients run; the fault comes in the middle. */
  seconds: number;
  /** More than one: the primary's node is killed, comes back as the secondary, and again, this often. */
  failovers: number;
  verify: boolean;
  tracker?: TrackerKind | 'auto';
  /** Where the clients stand; 'auto': on the guest's link if this host allows it. */
  clients?: EntranceKind | 'auto';
  guest: DemoGuest;
  machine?: NonNullable<SpecInput['machine']>;
  clock: Clock;
  signal: AbortSignal;
  say: (line: string) => void;
  /** Called about four times a second while the clients run. */
  show: (view: DemoView) => void;
}

export interface DemoView {
  statuses: NodeStatus[];
  clients: { name: string; progress: string }[];
  phase: string;
}

export interface DemoReport {
  ok: boolean;
  mode: string;
  fault: FaultKind;
  problems: string[];
  clients: ClientReport[];
  /** Where the clients stood, and why IPv6 was not tried; null when it was. */
  entrance: { kind: EntranceKind; ipv6Refusal: string | null };
  failover: { detectMs: number; takeoverMs: number; why: string } | null;
  checkpoints: {
    count: number;
    pauseMs: { p50: number; p99: number; max: number };
    commitMs: { p50: number; p99: number };
    dirtyPages: { p50: number; max: number };
    reasons: Record<string, number>;
    sentBytes: number;
    dirtyBytes: number;
  } | null;
  /** `--verify`: checkpoints that living nodes compared with the capture after their apply; null without. */
  verified: { equal: number; different: number } | null;
  released: { byMatch: number; byCommit: number; holdMs: { p50: number; p99: number } } | null;
  divergences: NodeStatus['divergences'];
  /** What a stopped node was about to write when it was stopped, and left when it woke. */
  late: Turn[];
  lastCheckpoints: NonNullable<NodeStatus['checkpoints']>['last'];
  proxy: Record<string, unknown>;
  host: { qemu: string; accel: string; tracker: string; cores: number; ramBytes: number; vcpus: number };
  seconds: number;
}

/** Generous: a host may be starved, and nobody waits for longer than it takes. */
const bootTimeoutMs = 180_000;
const protectTimeoutMs = 120_000;
const finishTimeoutMs = 120_000;
const failoverTimeoutMs = 60_000;

export async function runDemo(options: DemoOptions): Promise<DemoReport> {
  const { clock, say, guest, signal } = options;
  const spec = demoSpec(options);
  const started = clock.now();
  const { boot, served } = guest;
  const entrance = await openEntrance({ ...options, served });
  const clients: Client[] = [];
  let pair: LocalPair | undefined;
  try {
    pair = await LocalPair.start({ spec, boot, clock, signal, ...entrance.network });
    await consoleSays(pair.a, {
      ...{ text: guest.readyLine, path: `${pair.logDir}/a.serial`, timeoutMs: bootTimeoutMs, signal },
    });
    say(`the guest runs (${seconds(clock.now() - started)}): ${guest.words}`);
    await entrance.join(pair.lanPath);
    if (options.mode !== 'none') await protect(pair, options);
    for (const wanted of entrance.clients) {
      signal.throwIfAborted();
      clients.push(await entrance.start(wanted));
    }
    say(entrance.text);
    const cast = { options, spec, pair, clients, entrance };
    return options.failovers > 1 ? await longStory(cast) : await story(cast);
  } finally {
    for (const client of clients) client.abort();
    await entrance.close();
    await pair?.stop();
  }
}

function demoSpec(options: DemoOptions): Spec {
  const { name, mode, verify, tracker = 'auto', guest } = options;
  const machine = { ...guest.machine, ...options.machine };
  return checkSpec({ vm: name, boot: { guest: guest.kind }, machine, protect: { mode, verify, tracker } }, 'the demo');
}

async function protect(pair: LocalPair, options: DemoOptions): Promise<void> {
  const start = options.clock.now();
  await pair.startSecondary();
  const protectedNow = (statuses: NodeStatus[]) => statuses.some((one) => one.role === 'primary' && one.protected);
  await pair.until('protected', protectTimeoutMs, (statuses) => options.signal.aborted || protectedNow(statuses));
  options.signal.throwIfAborted();
  options.say(`protected in ${options.mode} mode (${seconds(options.clock.now() - start)}), while the guest ran`);
}

/** What a story is about; the bank (bank/story.ts) has one, too. */
export interface Scene {
  options: Pick<DemoOptions, 'mode' | 'fault' | 'clock' | 'signal' | 'show'>;
  pair: LocalPair;
  clients: Client[];
}

interface Cast extends Scene {
  options: DemoOptions;
  spec: Spec;
  entrance: Entrance;
}

async function story(cast: Cast): Promise<DemoReport> {
  const { options, pair, clients } = cast;
  const { clock, say, fault } = options;
  const problems: string[] = [];
  const half = (options.seconds * 1000) / 2;
  await watch(cast, half, `clients run; in ${Math.round(half / 1000)} s: ${fault}`);
  // A starved host may just have suspected its peer wrongly: the story is about a VM that is protected.
  const isProtected = (one: NodeStatus) => one.role === 'primary' && one.protected;
  const before =
    options.mode === 'none'
      ? await pair.primary()
      : await expectState(cast, problems, 'protected', (all) => all.find(isProtected));
  const parts = partsOf(fault, before?.node);
  for (const client of clients) client.markFault();
  say(faultTexts[fault]);
  const injected = await injectInto(pair[parts.victim], fault, () => wallTime(clock.now()));
  const survivor = await theSurvivor(cast, problems, parts);
  await watch(cast, half, 'the survivor serves');
  injected.wake();
  if (options.mode !== 'none' && (fault === 'primary-stop' || fault === 'primary-qemu-kill'))
    await expectRepaired(cast, problems, parts);
  say('waiting for the clients to finish');
  const reports = await finish(cast);
  const statuses = await pair.statuses();
  const after = statuses.find((status) => status.node === parts.survivor);
  const heard = voices(cast);
  problems.push(...heard.problems);
  problems.push(...reports.filter((report) => !report.ok).map((report) => `${report.name}: ${report.detail}`));
  const end = { after: after ?? survivor, failover: survivor?.failover ?? null, statuses, faultAt: injected.at };
  return report(cast, { problems, reports, late: heard.late, before, ...end });
}

/**
 * The primary's node dies, comes back as the secondary, the VM is protected again: and again, as often as asked for.
 */
async function longStory(cast: Cast): Promise<DemoReport> {
  const { options, pair, clients } = cast;
  const { clock, say, failovers } = options;
  const problems: string[] = [];
  const half = (options.seconds * 1000) / 2;
  let seen: Pick<Seen, 'before' | 'after' | 'faultAt'> = { before: undefined, after: undefined, faultAt: 0 };
  await watch(cast, half, 'clients run');
  for (let index = 1; index <= failovers && problems.length === 0; index += 1) {
    // A busy host may have made it doubt its secondary a moment ago: without one, its death would end the VM.
    const holder = (one: NodeStatus) => one.role === 'primary' && one.protected;
    const before = await expectState(cast, problems, 'protected', (all) => all.find(holder));
    const { victim: name, survivor: other } = partsOf('primary-kill', before?.node);
    if (index === 1) for (const client of clients) client.markFault();
    say(`failover ${index} of ${failovers}: the whole node ${name} is killed, and started again`);
    const { at } = await injectInto(pair[name], 'primary-kill', () => wallTime(clock.now()));
    const after = await expectState(cast, problems, `taken over by node ${other}`, (all) =>
      all.find((one) => one.node === other && one.role === 'primary' && (one.failover?.doneAt ?? 0) >= at),
    );
    await pair.restart(name);
    const start = clock.now();
    const isRepaired = (one: NodeStatus) => one.node === other && one.role === 'primary' && one.protected;
    await expectState(cast, problems, 'protected again', (all) => all.find(isRepaired));
    say(`protected again by node ${name} (${seconds(clock.now() - start)}), without being asked`);
    await watch(cast, half, `the survivor serves, failover ${index} of ${failovers} is behind it`);
    seen = { before, after, faultAt: at };
  }
  say('waiting for the clients to finish');
  const reports = await finish(cast);
  const heard = voices(cast);
  problems.push(...heard.problems);
  problems.push(...reports.filter((report) => !report.ok).map((report) => `${report.name}: ${report.detail}`));
  return report(cast, {
    problems,
    reports,
    late: heard.late,
    ...seen,
    failover: seen.after?.failover ?? null,
    statuses: await pair.statuses(),
  });
}

/** Waits for a status; it is a problem of the report when it does not come. */
export async function expectState(
  { options, pair }: Scene,
  problems: string[],
  what: string,
  find: (statuses: NodeStatus[]) => NodeStatus | undefined,
): Promise<NodeStatus | undefined> {
  try {
    const timeoutMs = failoverTimeoutMs + protectTimeoutMs;
    const isOver = (statuses: NodeStatus[]) => options.signal.aborted || find(statuses) !== undefined;
    const statuses = await pair.until(what, timeoutMs, isOver);
    options.signal.throwIfAborted();
    return find(statuses);
  } catch (error) {
    options.signal.throwIfAborted();
    problems.push(error instanceof Error ? error.message : String(error));
    return undefined;
  }
}

/** Shows the state of things for a while. */
export async function watch(cast: Scene, forMs: number, phase: string): Promise<void> {
  const { options, pair, clients } = cast;
  const end = options.clock.now() + forMs;
  while (options.clock.now() < end) {
    options.signal.throwIfAborted();
    const statuses = await pair.statuses();
    options.show({ statuses, phase, clients: clients.map((one) => ({ name: one.name, progress: one.progress() })) });
    await delay(Math.min(250, Math.max(1, end - options.clock.now())), options.clock);
  }
}

export async function theSurvivor(
  cast: Scene,
  problems: string[],
  { survivor: name }: Parts,
): Promise<NodeStatus | undefined> {
  const { options, pair } = cast;
  if (options.fault === 'none' || options.mode === 'none') return pair.primary();
  // It may be protected again when we look: a node that lost its term comes back by itself.
  const isSurvivor = (status: NodeStatus) =>
    status.node === name && status.role === 'primary' && status.failover !== null;
  try {
    const statuses = await pair.until(`taken over by node ${name}`, failoverTimeoutMs, (all) => all.some(isSurvivor));
    return statuses.find(isSurvivor);
  } catch (error) {
    problems.push(error instanceof Error ? error.message : String(error));
    return undefined;
  }
}

/**
 * A primary whose process lives finds that its term is over, ends its VM, and becomes the secondary of the survivor.
 */
async function expectRepaired(cast: Cast, problems: string[], { victim, survivor }: Parts): Promise<void> {
  await expectState(cast, problems, `protected again by node ${victim}`, (all) => {
    const loser = all.some((one) => one.node === victim && one.role === 'secondary' && one.protected);
    return loser ? all.find((one) => one.node === survivor && one.role === 'primary' && one.protected) : undefined;
  });
}

export async function finish(cast: Scene): Promise<ClientReport[]> {
  const { options, clients } = cast;
  let done = false;
  const all = Promise.all(clients.map((client) => client.finish(finishTimeoutMs))).finally(() => {
    done = true;
  });
  while (!done) {
    await Promise.race([all, watch(cast, 250, 'the clients finish')]);
    options.signal.throwIfAborted();
  }
  return all;
}

/**
 * Which nodes spoke for the guest, as the switch saw it: each owner of the VM in its time, and never back. Only what a
 * node was about to write when it was stopped may leave late (lan/turns.ts).
 */
function voices({ pair, spec, options }: Cast): { problems: string[]; late: Turn[] } {
  const expected = pair.owners.turns.length;
  const heard = pair.lan.spokenBy(spec.network.mac);
  const { turns, late } = withoutLate(heard);
  const lateMax = options.fault === 'primary-stop' ? 1 : 0;
  if (turns.length === expected && late.length <= lateMax) return { problems: [], late };
  const problem = `${heard.length} turns of speaking at the switch, not ${expected} (${describeTurns(heard)})`;
  return { problems: [problem], late };
}

/** What a report is made of. */
interface Seen {
  problems: string[];
  reports: ClientReport[];
  late: Turn[];
  before: NodeStatus | undefined;
  after: NodeStatus | undefined;
  /** As it was told first: a survivor that loses its next secondary has another one to tell of. */
  failover: NodeStatus['failover'];
  /** At the end, of all nodes that live. */
  statuses: NodeStatus[];
  faultAt: number;
}

/** `--verify`: what the nodes that live found when they compared what they applied with the capture. */
export function verified(statuses: NodeStatus[]): { equal: number; different: number } {
  const sum = (of: 'equal' | 'different') => statuses.reduce((all, one) => all + (one.verified?.[of] ?? 0), 0);
  return { equal: sum('equal'), different: sum('different') };
}

export function applyProblems({ different }: { different: number }): string[] {
  return different === 0 ? [] : [`${different} checkpoints were not equal to the capture after they were applied`];
}

function report(cast: Cast, seen: Seen): DemoReport {
  const { options } = cast;
  const { reports, late, before, after, failover: happened, faultAt } = seen;
  const main = options.fault === 'none' ? after : before;
  const applied = verified(seen.statuses);
  const problems = [...seen.problems, ...applyProblems(applied)];
  return {
    ok: problems.length === 0,
    mode: options.mode,
    fault: options.fault,
    problems,
    clients: reports,
    entrance: { kind: cast.entrance.kind, ipv6Refusal: cast.entrance.ipv6Refusal ?? null },
    failover:
      happened === null
        ? null
        : {
            detectMs: round(happened.detectedAt - faultAt),
            takeoverMs: round(happened.doneAt - happened.detectedAt),
            why: happened.why,
          },
    checkpoints: checkpoints(main),
    verified: options.verify ? applied : null,
    released: released(main),
    divergences: main?.divergences ?? [],
    late,
    lastCheckpoints: main?.checkpoints?.last ?? [],
    proxy: main?.proxy ?? {},
    host: main?.host ?? { qemu: '', accel: '', tracker: '', cores: cpus().length, ramBytes: 0, vcpus: 0 },
    seconds: options.seconds,
  };
}

function checkpoints(status: NodeStatus | undefined): DemoReport['checkpoints'] {
  const all = status?.checkpoints;
  if (all === undefined || all === null) return null;
  return {
    count: all.count,
    pauseMs: { p50: round(all.pauseMs.p50), p99: round(all.pauseMs.p99), max: round(all.pauseMs.max) },
    commitMs: { p50: round(all.commitMs.p50), p99: round(all.commitMs.p99) },
    dirtyPages: { p50: all.dirtyPages.p50, max: all.dirtyPages.max },
    reasons: all.reasons,
    sentBytes: all.sentBytes,
    dirtyBytes: all.dirtyBytes,
  };
}

function released(status: NodeStatus | undefined): DemoReport['released'] {
  if (status?.released === undefined || status.released === null) return null;
  const { byMatch, byCommit, holdMs } = status.released;
  return { byMatch, byCommit, holdMs: { p50: round(holdMs.p50), p99: round(holdMs.p99) } };
}

function seconds(milliseconds: number): string {
  return `${(milliseconds / 1000).toFixed(1)} s`;
}

function round(value: number): number {
  return Math.round(value * 100) / 100;
}
