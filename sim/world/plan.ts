// What a seed means: the machine, the network, the clients, and which faults happen when. Everything is drawn here,
// once, so that a plan can be printed and read.

import type { Protect } from '../../src/config/spec.ts';
import { type FaultPoint, faultPoints } from '../../src/node/fault-points.ts';
import type { GuestTraits } from '../guest/guest.ts';
import { drawWire, type Wire } from '../guest/wire.ts';
import type { VmTimes } from '../host/vm.ts';
import type { ClientTraits } from '../network/client.ts';
import type { WideArea } from '../network/network.ts';
import { drawLowLimits, type LowLimits } from './low-limits.ts';
import type { Random } from './random.ts';

export const faultKinds = [
  'kill-process',
  'kill-host',
  'pause-node',
  'pause-host',
  'cut',
  'cut-one-way',
  'slow-link',
  'unplug',
  'kill-vm',
  'fail-capture',
  'fail-load',
  'spoil-checkpoint',
  'damage-link',
  'reset-link',
  'arbiter-cut',
  'arbiter-slow',
  'arbiter-lossy',
  'arbiter-member',
  'clock-jump',
  'operator-checkpoint',
  'operator-failover',
  'operator-stop',
  'disk-slow',
  'disk-error',
  'disk-full',
  'stop-amid',
  'uplink-full',
  'kill-vm-unheard',
  'hang-vm',
  'own-disk-full',
  'disk-hang',
  'keep-fails',
  'signal',
  'shutdown',
  'stall',
  'stall-all',
  'loads-fail',
  'abort-link',
  'colod-killed',
  'drain',
  'registry-refuses',
] as const;
export type FaultKind = (typeof faultKinds)[number];

/** The hosts; the third one in clusters only. */
export type HostName = 'a' | 'b' | 'c';

export interface Fault {
  kind: FaultKind;
  /** Which node: by its name, or by its role when the fault happens. */
  on: HostName | 'primary' | 'secondary';
  /** `afterMs`: that long after the point was reached. */
  when: { atMs: number } | { point: FaultPoint; nth: number; afterMs?: number };
  forMs: number;
  /** What else the kind needs: a link, a step of a capture, how far a clock jumps. */
  choice: number;
}

export interface Plan {
  seed: number;
  verbose: boolean;
  ramBytes: number;
  protect: Protect;
  clients: ClientTraits[];
  guestTraits: Record<'a' | 'b', GuestTraits>;
  times: VmTimes;
  wide: WideArea;
  path: { delayMs: number; jitterMs: number; bytesPerMs: number };
  congestedBytes: number;
  arbiter: { delayMs: number; lose: number };
  faults: Fault[];
  /** The guest calls its clients itself, this long after the end of the call before. */
  callsEveryMs?: number | undefined;
  /** The guest has a disk. */
  disk?: DiskPlan | undefined;
  /** How packets look on the network; nothing: plain IPv4. */
  wire?: Wire | undefined;
  /** Limits of the proxies that are lower than the product's. */
  limits?: LowLimits | undefined;
  /** Three hosts, each with a service that places the VM; nothing: two nodes that a supervisor starts. */
  cluster?: boolean | undefined;
  /** All faults are over at this time. */
  healMs: number;
}

export interface DiskPlan {
  sectors: number;
  flush: 'local' | 'replicated';
  /** A write of the guest to its image, and one of the replica's node to its folder. */
  writeMs: number;
  storageMs: number;
}

/** What a seed draws; how much is traced is the caller's. */
export type DrawnPlan = Omit<Plan, 'verbose'>;

/** In these most defects are looked for: the faults that were made after them are drawn in each twelfth alone. */
const olderSeeds = 1000;

export function drawPlan(seed: number, random: Random): DrawnPlan {
  const pages = 40 + 8 * random.below(8);
  const isWild = random.chance(0.3);
  const disk = drawDisk(random.fork('disk'));
  const isNewer = seed > olderSeeds || seed % 12 === 3;
  const cluster = isNewer && random.fork('cluster').chance(1 / 16);
  const drawn = [
    ...drawFaults(random),
    ...(disk === undefined ? [] : drawDiskFaults(random.fork('disk faults'))),
    ...(disk === undefined ? [] : drawReturns(random.fork('returns'))),
    ...(disk === undefined ? [] : drawOwnDisk(random.fork('own disk'))),
    ...drawOperator(random.fork('operator')),
    ...drawToAndFro(random.fork('to and fro')),
    ...drawUplink(random.fork('uplink')),
    ...drawMembers(random.fork('members')),
    ...drawWake(random.fork('wake')),
    ...drawUnheard(random.fork('unheard')),
    ...drawHang(random.fork('hang')),
    ...drawEnds(random.fork('ends')),
    ...drawUnplugged(random.fork('unplugged')),
    ...(disk === undefined ? [] : drawTakeoverDisk(random.fork('takeover disk'))),
    ...(isNewer ? drawStall(random.fork('stall')) : []),
    ...(isNewer ? drawLoads(random.fork('loads')) : []),
    ...(isNewer ? drawAbort(random.fork('abort')) : []),
  ];
  const faults = cluster ? inCluster(drawn, random.fork('cluster faults')) : drawn;
  const calls = random.fork('calls');
  const latest = faults.reduce((last, fault) => Math.max(last, untilMs(fault)), 1500);
  return {
    ...(cluster ? { cluster } : {}),
    ...{ seed, faults, disk, limits: drawLowLimits(random.fork('limits')), wire: drawWire(random.fork('wire')) },
    callsEveryMs: calls.chance(0.4) ? calls.between(5, 120) : undefined,
    ramBytes: pages * 4096,
    protect: drawProtect(random),
    clients: Array.from({ length: 1 + random.below(2) }, () => drawClient(random)),
    guestTraits: { a: drawGuest(random), b: drawGuest(random) },
    times: {
      stopMs: random.between(0.3, 2),
      saveMs: random.between(0.5, 4),
      loadMs: random.between(2, 25),
      startMs: random.between(5, 60),
      cardMs: random.between(0.01, 0.2),
    },
    wide: {
      delayMs: random.between(0.2, 6),
      lose: isWild ? random.next() * 0.03 : 0,
      double: isWild ? random.next() * 0.02 : 0,
      overtake: isWild ? random.next() * 0.05 : 0,
    },
    path: { delayMs: random.between(0.05, 2), jitterMs: random.next(), bytesPerMs: random.between(2000, 200_000) },
    congestedBytes: random.pick([20_000, 200_000, 4 << 20]),
    arbiter: { delayMs: random.between(0.5, 12), lose: random.chance(0.1) ? 0.1 : 0 },
    healMs: latest + 1200,
  };
}

/** When it is over that all faults are to be over; a hang is not cut short. */
function untilMs({ kind, when, forMs }: Fault): number {
  if (!('atMs' in when)) return 0;
  return when.atMs + (lasting.has(kind) ? forMs : 0);
}

const lasting: ReadonlySet<FaultKind> = new Set<FaultKind>([
  ...(['hang-vm', 'disk-hang', 'keep-fails', 'stall', 'stall-all', 'loads-fail', 'drain'] as const),
]);

function drawProtect(random: Random): Protect {
  return {
    mode: random.chance(0.25) ? 'remus' : 'colo',
    interval: 15 + random.below(50),
    tryLoad: 500,
    epochMax: 150 + random.below(1500),
    compareTimeout: 20 + random.below(200),
    patience: random.below(200),
    dirtyMax: 4096 * (8 + random.below(60)),
    verify: random.chance(0.5),
    similarity: { timestamps: 'clamped', acks: 'merged', window: 'exact', dates: 'tolerant' },
    tracker: 'auto',
  };
}

function drawClient(random: Random): ClientTraits {
  return {
    thinkMs: random.pick([8, 20, 45, 90]),
    diverge: random.chance(0.6) ? random.next() * 0.25 : 0,
    long: random.next() * 0.5,
    datagrams: random.pick([0, 0, 6, 15, 80]),
    requests: random.pick([2, 6, 30]),
    reuse: random.chance(0.5) ? 0.7 : 0,
    pipeline: random.chance(0.3),
  };
}

function drawGuest(random: Random): GuestTraits {
  return {
    ackDelayMs: random.pick([0, 5, 40]),
    workMs: random.pick([0.5, 3, 12]),
    slow: random.chance(0.3) ? 0.02 : 0,
    choreMs: random.between(15, 90),
    wrapping: random.chance(0.2),
  };
}

/** How often each kind is drawn. */
const weights: Record<FaultKind, number> = {
  ...{ 'kill-process': 8, 'kill-host': 8, 'pause-node': 5, 'pause-host': 5, cut: 5, 'cut-one-way': 5, 'slow-link': 3 },
  ...{ unplug: 1, 'kill-vm': 4, 'fail-capture': 3, 'fail-load': 2, 'spoil-checkpoint': 4, 'damage-link': 2 },
  ...{ 'reset-link': 2, 'arbiter-cut': 2, 'arbiter-slow': 2, 'arbiter-lossy': 2, 'clock-jump': 1 },
  ...{ 'operator-checkpoint': 2, 'operator-failover': 3, 'operator-stop': 1 },
  // Drawn beside the others, for guests with a disk.
  ...{ 'disk-slow': 0, 'disk-error': 0, 'disk-full': 0 },
  // Drawn beside the others, so that they change nothing of what a seed meant before.
  ...{ 'stop-amid': 0, 'uplink-full': 0, 'arbiter-member': 0, 'kill-vm-unheard': 0, 'hang-vm': 0 },
  ...{ 'own-disk-full': 0 },
  ...{ 'disk-hang': 0, 'keep-fails': 0, signal: 0, shutdown: 0 },
  ...{ stall: 0, 'stall-all': 0, 'loads-fail': 0, 'abort-link': 0 },
  ...{ 'colod-killed': 0, drain: 0, 'registry-refuses': 0 },
};

function drawDisk(random: Random): DiskPlan | undefined {
  if (!random.chance(0.4)) return undefined;
  const disk: DiskPlan = {
    sectors: 12 + random.below(16),
    flush: random.chance(0.5) ? 'replicated' : 'local',
    writeMs: random.between(0.05, 2),
    storageMs: random.between(0.05, random.pick([1, 6])),
  };
  // On a larger one most blocks have not changed when a secondary comes back.
  return { ...disk, sectors: disk.sectors * random.pick([1, 1, 4]) };
}

/** An operator at a bad moment: while the nodes do not hear each other, or while the VM is being protected again. */
function drawOperator(random: Random): Fault[] {
  if (!random.chance(0.1)) return [];
  const atMs = random.between(300, 2000);
  const first = random.pick(['cut', 'cut-one-way', 'kill-process', 'pause-host', 'slow-link'] as const);
  const command = random.pick(['operator-stop', 'operator-failover', 'operator-checkpoint'] as const);
  const forMs = random.between(450, 1300);
  const when = { atMs: atMs + random.between(1, 700) };
  return [
    { kind: first, on: 'primary', when: { atMs }, forMs, choice: random.below(1000) },
    { kind: command, on: 'primary', when, forMs: 1, choice: random.below(1000) },
  ];
}

/** The guest is brought to the other node and back, and there again: processes take over for the second time. */
function drawToAndFro(random: Random): Fault[] {
  if (!random.chance(0.1)) return [];
  const everyMs = random.between(900, 1300);
  const firstMs = random.between(250, 500);
  const kind = random.pick(['operator-failover', 'kill-vm', 'pause-node', 'pause-node'] as const);
  const at = (index: number) => ({ atMs: firstMs + index * everyMs });
  return [0, 1, 2].map((index) => ({ kind, on: 'primary' as const, when: at(index), forMs: 600, choice: 0 }));
}

/** A primary with frames to say is stopped, in the middle of that, or with frames that its kernel does not take. */
function drawUplink(random: Random): Fault[] {
  if (!random.chance(0.2)) return [];
  const atMs = random.between(300, 2400);
  const stop: Fault = {
    ...{ kind: 'stop-amid', on: 'primary', when: { atMs }, forMs: random.between(600, 1600) },
    choice: random.below(1000),
  };
  if (random.chance(0.5)) return [stop];
  const full: Fault = {
    ...{ kind: 'uplink-full', on: 'primary', when: { atMs: atMs - random.between(1, 60) } },
    ...{ forMs: random.between(60, 1800), choice: random.below(1000) },
  };
  return random.chance(0.5) ? [full, stop] : [full, { ...stop, kind: random.pick(['pause-node', 'cut'] as const) }];
}

/** The arbiter loses members about when it is asked who goes on. */
function drawMembers(random: Random): Fault[] {
  if (!random.chance(0.15)) return [];
  const atMs = random.between(300, 2400);
  const cause: Fault = {
    kind: random.pick(['kill-process', 'kill-vm', 'cut', 'reset-link', 'pause-host', 'operator-failover'] as const),
    ...{ on: random.pick(['primary', 'primary', 'secondary'] as const), when: { atMs } },
    ...{ forMs: random.between(450, 1300), choice: random.below(1000) },
  };
  const when = { atMs: atMs + random.pick([random.between(-40, 30), random.between(400, 560)]) };
  const forMs = random.between(50, 1500);
  return [cause, { kind: 'arbiter-member', on: 'primary', when, forMs, choice: random.below(1000) }];
}

/**
 * The primary stands still until its lease is over, and is back while the secondary asks a slow arbiter for the term:
 * what it was lent meanwhile would outlast the takeover, of which it hears late.
 */
function drawWake(random: Random): Fault[] {
  if (!random.chance(0.08)) return [];
  const atMs = random.between(400, 1600);
  const forMs = random.between(455, 500);
  const kind = random.pick(['pause-node', 'pause-host'] as const);
  const late: Fault = random.chance(0.7)
    ? { kind: 'slow-link', on: 'secondary', when: { atMs }, forMs: 1500, choice: 840 + random.between(40, 119) }
    : { kind: 'cut', on: 'primary', when: { atMs: atMs + forMs + random.between(3, 80) }, forMs: 700, choice: 0 };
  return [
    { kind: 'arbiter-slow', on: 'secondary', when: { atMs }, forMs: 1500, choice: random.between(5, 70) },
    { kind, on: 'primary', when: { atMs }, forMs, choice: random.below(1000) },
    late,
  ];
}

/**
 * A QEMU dies, and all that it is asked fails for a while before its node hears of its end; the nodes may lose each
 * other then.
 */
function drawUnheard(random: Random): Fault[] {
  if (!random.chance(0.15)) return [];
  const on = random.pick(['primary', 'primary', 'secondary'] as const);
  const unheardMs = random.pick([random.between(0.2, 30), random.between(30, 400), random.between(400, 1500)]);
  const [first, ...others] = faultPoints;
  const atMs = random.between(300, 2300);
  const when = random.chance(0.3)
    ? { point: random.pick([first, ...others]), nth: 2 + random.below(5), afterMs: random.between(0, 4) }
    : { atMs };
  const death: Fault = { kind: 'kill-vm-unheard', on, when, forMs: unheardMs, choice: 2 * random.below(500) };
  return random.chance(0.6) ? [death] : [death, drawDoubt(random, atMs + random.next() * unheardMs)];
}

/** A QEMU hangs for a while, some longer than a sign of life is waited for. */
function drawHang(random: Random): Fault[] {
  if (!random.chance(0.08)) return [];
  const atMs = random.between(300, 2300);
  const on = random.pick(['primary', 'primary', 'secondary'] as const);
  const forMs = random.pick([random.between(20, 500), random.between(500, 1600), random.between(3000, 5500)]);
  const hang: Fault = { kind: 'hang-vm', on, when: { atMs }, forMs, choice: random.below(1000) };
  return random.chance(0.4) ? [hang] : [hang, drawDoubt(random, atMs + random.next() * Math.min(forMs, 1500))];
}

/**
 * Processes are told to end by a signal, hosts are shut down, one after the other or while the nodes do not hear each
 * other.
 */
function drawEnds(random: Random): Fault[] {
  if (!random.chance(0.15)) return [];
  const atMs = random.between(200, 1800);
  const end = (on: Fault['on'], at: number): Fault => ({
    ...{ kind: random.pick(['signal', 'shutdown', 'shutdown'] as const), on, when: { atMs: at } },
    ...{ forMs: random.pick([random.between(1, 60), random.between(60, 900)]), choice: random.below(1000) },
  });
  const first = end(random.pick(['primary', 'primary', 'secondary'] as const), atMs);
  const what = random.below(4);
  if (what === 0) return [first];
  if (what === 1) return [first, end('primary', atMs + random.between(0, 40))];
  if (what === 2) return [first, end(random.pick(['a', 'b'] as const), atMs + random.between(300, 1600))];
  return [first, drawDoubt(random, atMs + random.between(-30, 60))];
}

/**
 * Somebody's way to the network is gone for long enough to be handed over for, or both are, or the peer dies meanwhile.
 */
function drawUnplugged(random: Random): Fault[] {
  if (!random.chance(0.08)) return [];
  const atMs = random.between(200, 1200);
  const unplug = (on: Fault['on'], at: number): Fault => ({
    ...{ kind: 'unplug', on, when: { atMs: at }, forMs: random.between(900, 2500), choice: random.below(1000) },
  });
  const first = unplug('primary', atMs);
  const what = random.below(3);
  if (what === 0) return [first];
  if (what === 1) return [first, unplug('secondary', atMs + random.between(-200, 900))];
  const kind = random.pick(['kill-process', 'kill-host', 'pause-host'] as const);
  const when = { atMs: atMs + random.between(800, 1400) };
  return [first, { kind, on: 'secondary', when, forMs: 700, choice: random.below(1000) }];
}

/** The secondary's disk hangs, or QEMU does not keep its overlays, about when it takes over. */
function drawTakeoverDisk(random: Random): Fault[] {
  if (!random.chance(0.2)) return [];
  const atMs = random.between(400, 2300);
  const kind = random.pick(['disk-hang', 'keep-fails'] as const);
  const on = 'secondary' as const;
  const trouble: Fault = { kind, on, when: { atMs }, forMs: random.between(300, 4000), choice: random.below(1000) };
  const end: Fault = {
    kind: random.pick(['kill-process', 'kill-vm', 'pause-host', 'operator-failover', 'kill-host'] as const),
    ...{ on: 'primary', when: { atMs: atMs + random.between(0, 60) }, forMs: 1200, choice: random.below(1000) },
  };
  return [trouble, end];
}

/**
 * A machine stands still as a whole for seconds, every process and QEMU of it; or all machines do, as two that lie on
 * one starved host. Half of them while the nodes do not hear each other, or again soon after.
 */
function drawStall(random: Random): Fault[] {
  if (!random.chance(0.08)) return [];
  const atMs = random.between(300, 2300);
  const stall = (at: number): Fault => ({
    ...{
      kind: random.pick(['stall', 'stall', 'stall-all'] as const),
      on: random.pick(['primary', 'secondary'] as const),
    },
    ...{ when: { atMs: at }, forMs: random.pick([random.between(1000, 3000), random.between(3000, 10_000)]) },
    choice: random.below(1000),
  });
  const first = stall(atMs);
  const what = random.below(4);
  if (what < 2) return [first];
  if (what === 2) return [first, drawDoubt(random, atMs + random.between(-100, first.forMs))];
  return [first, stall(atMs + first.forMs * random.between(0.3, 1.4))];
}

/** For a while no state loads on the secondary's host, whatever machine it starts; its primary may die meanwhile. */
function drawLoads(random: Random): Fault[] {
  if (!random.chance(0.08)) return [];
  const atMs = random.between(100, 2000);
  const forMs = random.between(300, 3000);
  const fails: Fault = { kind: 'loads-fail', on: 'secondary', when: { atMs }, forMs, choice: random.below(1000) };
  if (random.chance(0.6)) return [fails];
  const kind = random.pick(['kill-process', 'reset-link', 'pause-host', 'operator-failover', 'signal'] as const);
  const when = { atMs: atMs + random.between(0, forMs) };
  return [fails, { kind, on: 'primary', when, forMs: 700, choice: random.below(1000) }];
}

/** A kernel, or something on the way, ends a connection; its owner hears of it later than the other end. */
function drawAbort(random: Random): Fault[] {
  if (!random.chance(0.08)) return [];
  const atMs = random.between(300, 2300);
  const on = random.pick(['primary', 'primary', 'secondary'] as const);
  const forMs = random.pick([random.between(0.1, 5), random.between(5, 500)]);
  return [{ kind: 'abort-link', on, when: { atMs }, forMs, choice: random.below(1000) }];
}

/** When the VM of a cluster is protected for the first time: services look twice a second. */
const clusterMs = 5000;

/**
 * The same faults when the VM has been placed, and those of a cluster: hosts that are emptied, die and come back with
 * nothing, services that die, a registry that takes nothing. Nobody stops the VM: to remove it is another thing.
 */
function inCluster(faults: readonly Fault[], random: Random): Fault[] {
  const later = faults
    .filter(({ kind }) => kind !== 'operator-stop')
    .map((fault) => ('atMs' in fault.when ? { ...fault, when: { atMs: fault.when.atMs + clusterMs } } : fault));
  const own = Array.from({ length: 1 + random.below(4) }, (): Fault => {
    const kinds = [
      'drain',
      'drain',
      'kill-host',
      'shutdown',
      'colod-killed',
      'registry-refuses',
      'arbiter-slow',
    ] as const;
    const on = random.pick(['a', 'b', 'c', 'primary', 'primary', 'secondary'] as const);
    const when = { atMs: clusterMs + random.between(-3000, 9000) };
    const forMs = random.pick([random.between(100, 2000), random.between(2000, 9000)]);
    return { kind: random.pick(kinds), on, when, forMs, choice: random.below(1000) };
  });
  return [...later, ...own];
}

/** The nodes do not hear each other, or believe so. */
function drawDoubt(random: Random, atMs: number): Fault {
  const kind = random.pick(['reset-link', 'damage-link', 'cut', 'cut-one-way'] as const);
  return { kind, on: 'primary', when: { atMs }, forMs: random.between(450, 1300), choice: random.below(1000) };
}

function drawDiskFaults(random: Random): Fault[] {
  const kinds = ['disk-slow', 'disk-error', 'disk-full', 'kill-host', 'kill-process'] as const;
  const faults: Fault[] = Array.from({ length: random.pick([0, 0, 1, 1, 2]) }, () => ({
    ...drawFault(random),
    ...{ kind: random.pick(kinds), on: random.pick(['a', 'b', 'secondary', 'secondary'] as const) },
  }));
  // Into the middle of an apply.
  if (!random.chance(0.3)) return faults;
  const when = { point: 'apply.stopped' as const, nth: 2 + random.below(4), afterMs: random.between(0, 8) };
  const kind = random.pick(['kill-process', 'kill-host', 'disk-error'] as const);
  return [...faults, { kind, on: 'secondary', when, forMs: random.between(50, 600), choice: 2 * random.below(500) }];
}

/** The secondary is lost and comes back, with the replica that it had: only what changed is to be copied. */
function drawReturns(random: Random): Fault[] {
  if (!random.chance(0.4)) return [];
  return Array.from({ length: 1 + random.below(3) }, () => ({
    ...{ kind: random.pick(['reset-link', 'kill-process', 'damage-link'] as const), on: 'secondary' as const },
    ...{ when: { atMs: random.between(300, 2600) }, forMs: 1, choice: random.below(1000) },
  }));
}

/** The disk of the host under the guest's own image or overlay is full for a while. */
function drawOwnDisk(random: Random): Fault[] {
  if (!random.chance(0.25)) return [];
  const on = random.pick(['primary', 'primary', 'secondary'] as const);
  const atMs = random.between(300, 2300);
  const forMs = random.pick([random.between(20, 400), random.between(400, 1600)]);
  const full: Fault = { kind: 'own-disk-full', on, when: { atMs }, forMs, choice: random.below(1000) };
  return random.chance(0.5) ? [full] : [full, drawDoubt(random, atMs + random.next() * forMs)];
}

function drawFaults(random: Random): Fault[] {
  const count = random.pick([0, 1, 1, 1, 2, 2, 3, 4]);
  return Array.from({ length: count }, () => drawFault(random));
}

function drawFault(random: Random): Fault {
  const kind = drawKind(random);
  const [first, ...others] = faultPoints;
  const when = random.chance(0.35)
    ? { point: random.pick([first, ...others]), nth: 1 + random.below(random.pick([2, 4, 12])) }
    : { atMs: random.between(30, 2600) };
  return {
    ...{ kind, when },
    on: random.pick(['a', 'b', 'primary', 'primary', 'primary', 'secondary'] as const),
    forMs: random.pick([random.between(5, 100), random.between(100, 700), random.between(450, 1600)]),
    choice: random.below(1000),
  };
}

function drawKind(random: Random): FaultKind {
  const total = faultKinds.reduce((sum, kind) => sum + weights[kind], 0);
  let left = random.next() * total;
  for (const kind of faultKinds) {
    left -= weights[kind];
    if (left < 0) return kind;
  }
  return 'kill-process';
}

export function faultText(fault: Fault): string {
  const when =
    'atMs' in fault.when
      ? `at ${fault.when.atMs.toFixed(0)} ms`
      : `${(fault.when.afterMs ?? 0).toFixed(0)} ms after ${fault.when.point} #${fault.when.nth}`;
  return `${fault.kind} on ${fault.on} ${when} for ${fault.forMs.toFixed(0)} ms (${fault.choice})`;
}
