// What comparing costs: frames a second and nanoseconds per frame through the primary's proxy, beside QEMU's
// colo-compare fed with the same frames in the same run. `colo bench proxy` prints the table, or JSON.
//
// Frames are counted on both sides: an equal pair is two. Three ways to be fed:
//
//   in process       the core alone, frames of both guests by turns in batches; time is that of its thread on a core
//   over sockets     the core in a process of its own behind Unix sockets (bench/proxy-process.ts), as colo-compare is
//   colo-compare     QEMU in a process of its own behind Unix sockets
//
// The client writes and reads both of the last two in the same way, with everything packed beforehand. With three busy
// processes on few cores the frames a second of a whole run say as much about the client and the scheduler as about the
// comparer; what the comparer's own process costs on its cores, per frame, is the steadier figure, and both are shown.
// The first half of each run over sockets warms up (ours has a compiler to wait for), the second half is measured.
// Figures of one run compare with each other only; `ratios` are what carries over.

import { readdirSync, readFileSync } from 'node:fs';
import { cpus } from 'node:os';
import v8 from 'node:v8';
import { runInNewContext } from 'node:vm';
import { systemClock } from '../src/base/clock.ts';
import { median } from '../src/base/quantile.ts';
import { type Address, buildTcp, buildUdp, timestampsOption } from '../src/packet/build.ts';
import { tcpFlag } from '../src/packet/tcp.ts';
import { PrimaryProxy } from '../src/proxy/primary.ts';
import { ColoCompare, packFrames } from '../test/functional/colo-compare.ts';
import { portsTo } from './proxy-ports.ts';
import { ProxyProcess } from './proxy-process.ts';

export interface ProxyBenchOptions {
  /** Repetitions of each case; the median counts. */
  rounds: number;
  /** Print JSON instead of the table. */
  json: boolean;
  print?: (text: string) => void;
}

interface Rate {
  framesPerSecond: number;
  nsPerFrame: number;
}

interface SocketRate {
  framesPerSecond: number;
  /** CPU time of the comparer's process: all threads, kernel included. */
  cpuNsPerFrame: number;
}

export interface ProxyCase {
  name: string;
  inProcess: Rate;
  /** Bytes of the JavaScript heap taken per frame, once warm, with what the measuring itself takes. */
  heapBytesPerFrame: number;
  overSockets: SocketRate | undefined;
  coloCompare: SocketRate | undefined;
}

export interface ProxyReport {
  host: { node: string; cores: number; cpu: string };
  cases: ProxyCase[];
  memory: { connections: number; megabytes: number; megabytesMax: number; tableMegabytes: number };
  flood: { calls: number; nsPerCall: number; nsPerCallFull: number };
  ratios: {
    inProcessOverColoCompare: Record<string, number>;
    overSocketsOverColoCompare: Record<string, number>;
    cpuOfColoCompareOverOurs: Record<string, number>;
  };
}

/** The two legs, with the same number of frames; `opening` comes first and is not measured. */
interface Traffic {
  name: string;
  opening: Uint8Array[];
  primary: Uint8Array[];
  secondary: Uint8Array[];
  /** What the client acknowledges behind the frames of the same place; most places have nothing. */
  acks: (Uint8Array | undefined)[];
  /** Frames after which the primary's proxy commits a checkpoint; 0 for never. */
  commitEvery: number;
  /** Whether colo-compare takes it without asking for checkpoints. */
  isForBoth: boolean;
}

const batchFrames = 32;
/** Segments of a connection that one acknowledgement of its client is for. */
const ackedSegments = 2;
const framesPerLeg = 40_000;
const guest: Address = { mac: Uint8Array.of(2, 0, 0, 0, 0, 1), ip: 0x0a00020f, port: 80 };
const guestIpv6: Address = { ...guest, ip: Uint8Array.of(0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1) };

function clientOf(index: number, isIpv6 = false): Address {
  const port = 1024 + (index % 60_000);
  const network = 2 + Math.floor(index / 60_000);
  const mac = Uint8Array.of(2, 0, 0, 0, 0, 2);
  if (!isIpv6) return { mac, ip: 0x0a000200 + network, port };
  return { mac, ip: Uint8Array.of(0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, network), port };
}

interface Shape {
  name: string;
  connections: number;
  payloadBytes: number;
  isIpv6?: boolean;
  /** Frames of the secondary exchanged in groups of this size. */
  shuffled?: number;
  /** One frame in so many differs. */
  differs?: number;
}

function tcpTraffic(shape: Shape): Traffic {
  const { name, connections, payloadBytes, isIpv6 = false, shuffled = 0, differs = 0 } = shape;
  const from = isIpv6 ? guestIpv6 : guest;
  const clients = Array.from({ length: connections }, (_, index) => clientOf(index, isIpv6));
  const opening = clients.map((client) => buildTcp(from, client, { sequence: 999, ack: 5001, flags: tcpFlag.syn }));
  const primary: Uint8Array[] = [];
  const secondary: Uint8Array[] = [];
  const acks: (Uint8Array | undefined)[] = [];
  for (let index = 0; index < framesPerLeg; index += 1) {
    const client = clients[index % connections] as Address;
    const sequence = 1000 + Math.floor(index / connections) * payloadBytes;
    const payload = new Uint8Array(payloadBytes).fill(index);
    const segment = { sequence, ack: 5001, flags: tcpFlag.psh, window: 1000, options: timestampsOption(index, 7) };
    primary.push(buildTcp(from, client, { ...segment, payload }));
    const other = Uint8Array.from(payload);
    if (differs > 0 && index % differs === 0) other[payloadBytes >> 1] = index + 1;
    secondary.push(buildTcp(from, client, { ...segment, payload: other }));
    const isAcked = Math.floor(index / connections) % ackedSegments === ackedSegments - 1;
    const ack = { sequence: 5001, ack: sequence + payloadBytes, flags: 0, options: timestampsOption(7, index) };
    acks.push(isAcked ? Buffer.from(buildTcp(client, from, ack)) : undefined);
  }
  if (shuffled > 0) shuffle(secondary, shuffled);
  const isForBoth = shuffled === 0 && differs === 0 && !isIpv6;
  return { name, opening, primary, secondary, acks, commitEvery: differs, isForBoth };
}

function udpTraffic(name: string, flows: number, payloadBytes: number): Traffic {
  const primary = Array.from({ length: framesPerLeg }, (_, index) =>
    buildUdp(guest, clientOf(index % flows), new Uint8Array(payloadBytes).fill(index)),
  );
  const secondary = primary.map((frame) => Uint8Array.from(frame));
  return { name, opening: [], primary, secondary, acks: [], commitEvery: 0, isForBoth: true };
}

/** Turns the order round within each group. */
function shuffle(frames: Uint8Array[], group: number): void {
  for (let at = 0; at < frames.length; at += group) {
    frames.splice(at, group, ...frames.slice(at, at + group).reverse());
  }
}

function allTraffic(): Traffic[] {
  return [
    tcpTraffic({ name: 'TCP, 1448 bytes', connections: 64, payloadBytes: 1448 }),
    tcpTraffic({ name: 'TCP, 64 bytes', connections: 64, payloadBytes: 64 }),
    tcpTraffic({ name: 'TCP over IPv6, 64 bytes', connections: 64, payloadBytes: 64, isIpv6: true }),
    udpTraffic('UDP, 64 bytes', 64, 64),
    tcpTraffic({ name: 'reordered by 4', connections: 1, payloadBytes: 64, shuffled: 4 }),
    tcpTraffic({ name: 'one of 100 differs', connections: 64, payloadBytes: 64, differs: 100 }),
    tcpTraffic({ name: '5,000 connections', connections: 5_000, payloadBytes: 64 }),
  ];
}

function newProxy(onNetwork: () => void): PrimaryProxy {
  const proxy = new PrimaryProxy(portsTo(onNetwork), { mode: 'colo', compareTimeoutMs: 1e9, patienceMs: 0 });
  proxy.startMirroring();
  proxy.commit(proxy.capture(0).epoch, 0);
  proxy.resumed(1, 0);
  return proxy;
}

/** Gives everything to the proxy, in batches by turns; returns the thread's nanoseconds. */
function feed(traffic: Traffic, isHeapMeasured = false): { ns: number; heapBytes: number; left: number } {
  let left = 0;
  const proxy = newProxy(() => {
    left += 1;
  });
  let epoch = 1;
  for (const frame of traffic.opening) {
    proxy.fromGuest(Uint8Array.from(frame), 0);
    proxy.fromSecondary(epoch, 0, frame, 0);
  }
  // A proxy may change the primary's frames where they lie.
  const primary = traffic.primary.map((frame) => Buffer.from(frame));
  const secondary = traffic.secondary.map((frame) => Buffer.from(frame));
  const heapFrom = isHeapMeasured ? primary.length - heapWindowFrames : -1;
  let heapBefore = 0;
  const begin = process.threadCpuUsage();
  let sinceCommit = 0;
  for (let at = 0; at < primary.length; at += batchFrames) {
    const end = Math.min(primary.length, at + batchFrames);
    const now = at * 0.01;
    if (at === heapFrom) heapBefore = heapAfterCollection();
    for (let index = at; index < end; index += 1) proxy.fromGuest(primary[index] as Buffer, now);
    for (let index = at; index < end; index += 1) proxy.fromSecondary(epoch, index, secondary[index] as Buffer, now);
    for (let index = at; index < end; index += 1) {
      const ack = traffic.acks[index];
      if (ack !== undefined) proxy.fromNetwork(ack, now);
    }
    sinceCommit += batchFrames;
    if (traffic.commitEvery > 0 && sinceCommit >= traffic.commitEvery) {
      sinceCommit = 0;
      epoch = proxy.capture(now).epoch;
      proxy.commit(epoch, now);
      proxy.resumed(epoch, now);
    }
  }
  const used = process.threadCpuUsage(begin);
  const ns = (used.user + used.system) * 1000;
  return { ns, heapBytes: process.memoryUsage().heapUsed - heapBefore, left };
}

/** A window small enough that no collection runs in it, and at its beginning everything is warm. */
const heapWindowFrames = 9_600;

/** Frames of both legs, and the clients' acknowledgements among them. */
function heapFrames({ acks }: Traffic): number {
  return 2 * heapWindowFrames + acks.slice(-heapWindowFrames).filter((ack) => ack !== undefined).length;
}

v8.setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

function heapAfterCollection(): number {
  collect();
  return process.memoryUsage().heapUsed;
}

/**
 * Bytes of the heap taken per frame of equal traffic, TCP and UDP: of each the median of `rounds`, after `warmUp`
 * others.
 */
export function heapBytesOfMatching(warmUp: number, rounds: number): { traffic: string; bytesPerFrame: number }[] {
  const shapes = [tcpTraffic({ name: 'TCP', connections: 64, payloadBytes: 64 }), udpTraffic('UDP', 64, 64)];
  const seen = shapes.map((): number[] => []);
  for (let round = -warmUp; round < rounds; round += 1)
    for (const [index, shape] of shapes.entries()) {
      const { heapBytes } = feed(shape, true);
      if (round >= 0) seen[index]?.push(heapBytes / heapFrames(shape));
    }
  return shapes.map(({ name }, index) => ({ traffic: name, bytesPerFrame: median(seen[index] ?? []) }));
}

function rateOf(frames: number, ns: number): Rate {
  return { framesPerSecond: (frames / ns) * 1e9, nsPerFrame: ns / frames };
}

function measureInProcess(traffic: Traffic, rounds: number): { rate: Rate; heapBytesPerFrame: number } {
  const frames = 2 * framesPerLeg;
  // Twice for the compiler.
  feed(traffic);
  feed(traffic);
  const all = Array.from({ length: rounds }, () => feed(traffic));
  const heap = Array.from({ length: 3 }, () => feed(traffic, true).heapBytes);
  return {
    rate: rateOf(frames, median(all.map(({ ns }) => ns))),
    heapBytesPerFrame: Math.max(0, median(heap) / heapFrames(traffic)),
  };
}

/** What takes frames over sockets: colo-compare, or ours. */
interface Peer {
  readonly pid: number;
  send(leg: 'primary' | 'secondary', packed: Buffer): boolean;
  /** Frames of the clients, for who wants them. */
  acknowledge?(packed: Buffer): void;
  stop(): Promise<void>;
}

/** colo-compare drops silently beyond 1024 packets of a connection: fewer are on their way at any time. */
const onTheWayMax = 768;

async function measureOverSockets(
  traffic: Traffic,
  rounds: number,
  start: (released: () => void) => Promise<Peer>,
): Promise<SocketRate> {
  const all: SocketRate[] = [];
  const acks = packAll(traffic.acks);
  const packed = { primary: packAll(traffic.primary), secondary: packAll(traffic.secondary), acks };
  for (let round = 0; round < rounds; round += 1) all.push(await feedOverSockets(traffic, packed, start));
  return {
    framesPerSecond: median(all.map(({ framesPerSecond }) => framesPerSecond)),
    cpuNsPerFrame: median(all.map(({ cpuNsPerFrame }) => cpuNsPerFrame)),
  };
}

const stepFrames = 128;

function packAll(frames: readonly (Uint8Array | undefined)[]): Buffer[] {
  const steps = Math.ceil(frames.length / stepFrames);
  const stepOf = (index: number) => frames.slice(index * stepFrames, (index + 1) * stepFrames);
  return Array.from({ length: steps }, (_, index) => packFrames(stepOf(index).filter((frame) => frame !== undefined)));
}

async function feedOverSockets(
  traffic: Traffic,
  packed: { primary: Buffer[]; secondary: Buffer[]; acks: Buffer[] },
  start: (released: () => void) => Promise<Peer>,
): Promise<SocketRate> {
  let out = 0;
  let wanted = Number.POSITIVE_INFINITY;
  let wake = () => undefined as void;
  const peer = await start(() => {
    out += 1;
    if (out >= wanted) wake();
  });
  const until = async (count: number) => {
    if (out >= count) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    [wanted, wake] = [count, resolve];
    await promise;
  };
  const send = async (from: number, to: number, before: number) => {
    for (let step = from; step < to; step += 1) {
      peer.send('primary', packed.primary[step] as Buffer);
      peer.send('secondary', packed.secondary[step] as Buffer);
      const acks = packed.acks[step];
      if (acks !== undefined && acks.length > 0) peer.acknowledge?.(acks);
      await until(before + (step + 1) * stepFrames - onTheWayMax);
    }
    await until(before + Math.min(traffic.primary.length, to * stepFrames));
  };
  try {
    const opening = packFrames(traffic.opening);
    for (const leg of ['primary', 'secondary'] as const) if (opening.length > 0) peer.send(leg, opening);
    await until(traffic.opening.length);
    const steps = packed.primary.length;
    const half = steps >> 1;
    await send(0, half, traffic.opening.length);
    const begin = { cpuNs: cpuNsOf(peer.pid), ms: systemClock.now() };
    await send(half, steps, traffic.opening.length);
    const frames = 2 * (traffic.primary.length - half * stepFrames);
    return {
      framesPerSecond: (frames / (systemClock.now() - begin.ms)) * 1000,
      cpuNsPerFrame: (cpuNsOf(peer.pid) - begin.cpuNs) / frames,
    };
  } finally {
    await peer.stop();
  }
}

/** What all threads of a process have had of the cores. */
function cpuNsOf(pid: number): number {
  const folder = `/proc/${pid}/task`;
  const threads = readdirSync(folder).map((thread) => readFileSync(`${folder}/${thread}/schedstat`, 'latin1'));
  return threads.reduce((sum, text) => sum + Number.parseInt(text, 10), 0);
}

/** What 100,000 idle connections cost. */
export function measureMemory(): ProxyReport['memory'] {
  const connections = 100_000;
  collect();
  const before = process.memoryUsage();
  const proxy = newProxy(() => undefined);
  for (let index = 0; index < connections; index += 1) {
    // As many of both families as fit into a table.
    const isIpv6 = index % 50 === 0;
    const client = clientOf(index, isIpv6);
    const syn = { sequence: 999 + index, ack: 5001, flags: tcpFlag.syn, options: timestampsOption(index, 7) };
    const frame = buildTcp(isIpv6 ? guestIpv6 : guest, client, syn);
    proxy.fromGuest(Buffer.from(frame), 0);
    proxy.fromSecondary(1, index, frame, 0);
  }
  collect();
  const after = process.memoryUsage();
  const bytes = after.heapUsed + after.arrayBuffers - before.heapUsed - before.arrayBuffers;
  const table = proxy.capture(1).table.length;
  return {
    connections: proxy.counters.connections,
    megabytes: bytes / 1e6,
    megabytesMax: 200,
    tableMegabytes: table / 1e6,
  };
}

/**
 * What a stranger costs whose calls nobody completes: of each the SYN, and both guests' answers. Nanoseconds of the
 * thread while the table fills, and when it is full.
 */
export function measureFlood(): ProxyReport['flood'] {
  const calls = 200_000;
  const proxy = newProxy(() => undefined);
  const half: number[] = [];
  for (const from of [0, calls / 2]) {
    const frames = Array.from({ length: calls / 2 }, (_, index) => {
      const client = clientOf(from + index);
      const answer = buildTcp(guest, client, { sequence: 999 + index, ack: 5001, flags: tcpFlag.syn });
      return {
        syn: buildTcp(client, guest, { sequence: 5000, flags: tcpFlag.syn }),
        answer,
        other: Uint8Array.from(answer),
      };
    });
    const begin = process.threadCpuUsage();
    for (const { syn, answer, other } of frames) {
      proxy.fromNetwork(syn, 0);
      proxy.fromGuest(answer, 0);
      proxy.fromSecondary(1, 0, other, 0);
    }
    const used = process.threadCpuUsage(begin);
    half.push(((used.user + used.system) * 1000) / frames.length);
  }
  return { calls, nsPerCall: half[0] ?? 0, nsPerCallFull: half[1] ?? 0 };
}

export async function benchProxy(options: ProxyBenchOptions): Promise<ProxyReport> {
  const print = options.print ?? ((text: string) => void process.stdout.write(text));
  const memory = measureMemory();
  const flood = measureFlood();
  const cases: ProxyCase[] = [];
  if (!options.json) print(heading());
  for (const traffic of allTraffic()) {
    const { rate, heapBytesPerFrame } = measureInProcess(traffic, options.rounds);
    const each: ProxyCase = {
      name: traffic.name,
      inProcess: rate,
      heapBytesPerFrame,
      overSockets: undefined,
      coloCompare: undefined,
    };
    if (traffic.isForBoth) {
      const rounds = Math.min(3, options.rounds);
      each.overSockets = await measureOverSockets(traffic, rounds, (released) => ProxyProcess.start(released));
      const quiet = { checkpointWanted: () => undefined };
      const start = (released: () => void) => ColoCompare.start({ ...quiet, released });
      each.coloCompare = await measureOverSockets(traffic, rounds, start);
    }
    cases.push(each);
    if (!options.json) print(row(each));
  }
  const [first] = cpus();
  const host = { node: process.version, cores: cpus().length, cpu: first?.model ?? '' };
  const report = { host, cases, memory, flood, ratios: ratiosOf(cases) };
  print(options.json ? `${JSON.stringify(report, null, 2)}\n` : footer(report));
  return report;
}

function ratiosOf(cases: readonly ProxyCase[]): ProxyReport['ratios'] {
  const each = (ratio: (ours: SocketRate, theirs: SocketRate, one: ProxyCase) => number) =>
    Object.fromEntries(
      cases.flatMap((one) => {
        const { overSockets, coloCompare } = one;
        if (overSockets === undefined || coloCompare === undefined) return [];
        return [[one.name, ratio(overSockets, coloCompare, one)]];
      }),
    );
  return {
    inProcessOverColoCompare: each((_, theirs, { inProcess }) => inProcess.framesPerSecond / theirs.framesPerSecond),
    overSocketsOverColoCompare: each((ours, theirs) => ours.framesPerSecond / theirs.framesPerSecond),
    cpuOfColoCompareOverOurs: each((ours, theirs) => theirs.cpuNsPerFrame / ours.cpuNsPerFrame),
  };
}

const widths = [24, 13, 10, 14, 22, 22];

function columns(cells: readonly string[]): string {
  const padded = cells.map((cell, index) =>
    index === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[index] ?? 0),
  );
  return `${padded.join('')}\n`;
}

function heading(): string {
  const both = 'frames/s, CPU ns';
  const first = columns(['', 'in process', '', '', 'ours over sockets', 'colo-compare']);
  return first + columns(['', 'frames/s', 'ns/frame', 'heap B/frame', both, both]);
}

function row(each: ProxyCase): string {
  const rate = (of: { framesPerSecond: number }) => Math.round(of.framesPerSecond).toLocaleString('en');
  const both = (of: SocketRate | undefined) =>
    of === undefined ? '-' : `${rate(of)}, ${of.cpuNsPerFrame.toFixed(0).padStart(4)}`;
  const heap = each.heapBytesPerFrame.toFixed(1);
  const ns = each.inProcess.nsPerFrame.toFixed(0);
  return columns([each.name, rate(each.inProcess), ns, heap, both(each.overSockets), both(each.coloCompare)]);
}

function footer({ host, memory, flood, ratios }: ProxyReport): string {
  const list = (all: Record<string, number>) =>
    Object.entries(all)
      .map(([name, ratio]) => `${ratio.toFixed(1)} (${name})`)
      .join(', ');
  return [
    `Node ${host.node}, ${host.cores} cores, ${host.cpu}`,
    `in process over colo-compare: ${list(ratios.inProcessOverColoCompare)}`,
    `ours over sockets over colo-compare: ${list(ratios.overSocketsOverColoCompare)}`,
    `CPU of colo-compare over ours: ${list(ratios.cpuOfColoCompareOverOurs)}`,
    `${memory.connections} connections held: ${memory.megabytes.toFixed(0)} of ${memory.megabytesMax} MB, ` +
      `${memory.tableMegabytes.toFixed(1)} MB in a checkpoint`,
    `a flood of ${flood.calls} calls that nobody completes: ${flood.nsPerCall.toFixed(0)} ns a call while ` +
      `the table fills, ${flood.nsPerCallFull.toFixed(0)} when it is full`,
    '',
  ].join('\n');
}
