// `colo doctor --prove`: shows on a user's host, in about a minute, that the promises hold under the accelerator that
// it has. Nothing is taken for granted: the guest checks its own memory, all of its RAM is compared after each capture
// and each load, and clients check every byte through a failover.
//
//   bare guest (always)              200 captures, what they cost the guest, 50 loads, a failover with TCP clients;
//                                    some captures and loads more with two running vCPUs
//   demo guest (where KVM runs it)   a failover with two vCPUs: interrupts under KVM
//
// What was not seen is said as plainly as what was: it depends on how this host's KVM works.

import { mkdtempSync, rmSync } from 'node:fs';
import { cpus, release } from 'node:os';
import { join } from 'node:path';
import { buildBareGuest } from '../../../guest/bare/build.ts';
import { findGuest, type Guest } from '../../../guest/build.ts';
import type { Clock } from '../../base/clock.ts';
import { errorText } from '../../base/errors.ts';
import { type KvmKind, kvmKind, probeBareGuest, probeKvm } from '../../host/accelerator.ts';
import { type DemoReport, runDemo } from '../demo.ts';
import { bareDemoGuest, type DemoGuest, linuxGuest } from '../guest.ts';
import { type CaptureReport, checkCaptures } from './captures.ts';
import { checkLoads, type LoadReport, startTwins } from './loads.ts';
import { measureSlowDown, type SlowDown } from './slow-down.ts';

export interface ProofOptions {
  /** What to prove it under; KVM where it runs the bare guest when left out. */
  accel?: 'kvm' | 'tcg';
  captures: number;
  loads: number;
  clock: Clock;
  signal: AbortSignal;
  say: (line: string) => void;
}

export interface Failover {
  guest: 'bare' | 'demo';
  ok: boolean;
  problems: string[];
  vcpus: number;
  checkpoints: number;
  pauseMs: { p50: number; p99: number } | null;
  detectMs: number | null;
  takeoverMs: number | null;
  /** Longest silence of a client after the fault. */
  gapMsMax: number;
  downloadMibPerSecond: number;
  clients: string[];
}

export interface Proof {
  ok: boolean;
  problems: string[];
  host: {
    qemu: string;
    kernel: string;
    processor: string;
    cores: number;
    accel: 'kvm' | 'tcg';
    accelWhy: string;
    kvm: KvmKind | null;
    tracker: string;
    /** Where the bare guest ran: 3 when KVM emulates all of ring 0. */
    ring: number;
  };
  readyMs: number;
  captures: CaptureReport;
  slowDown: SlowDown;
  loads: LoadReport;
  /** With several running vCPUs. */
  several: { vcpus: number; captures: CaptureReport; loads: LoadReport };
  failovers: Failover[];
  seen: string[];
  notSeen: string[];
}

const machine = 'q35';
const slowDownRounds = 20;
const severalVcpus = 2;
const severalRounds = 10;
const failoverSeconds = 8;
const probeMs = 30_000;

export async function prove(options: ProofOptions): Promise<Proof> {
  const { say } = options;
  const kernel = await buildBareGuest();
  const kvm = await probeBareGuest(kernel, probeMs);
  const accel = options.accel ?? (kvm.usable ? 'kvm' : 'tcg');
  say(`${accel === 'kvm' ? 'KVM' : 'TCG (emulation)'}: ${kvm.detail}`);
  const engine = await proveEngine(accel, options);
  options.signal.throwIfAborted();
  const several = await proveSeveral(accel, options);
  options.signal.throwIfAborted();
  const failovers = [await proveFailover(bareDemoGuest(kernel, Infinity), { accel, vcpus: 1 }, options)];
  const linux = accel === 'kvm' ? await linuxUnderKvm(say) : undefined;
  if (linux !== undefined)
    failovers.push(await proveFailover(linuxGuest(linux), { accel, vcpus: Math.min(2, cpus().length) }, options));
  const host = {
    ...{ qemu: engine.qemu, kernel: release(), processor: cpus()[0]?.model.trim() ?? '', cores: cpus().length, accel },
    ...{ accelWhy: kvm.detail, kvm: kvmKind() ?? null, tracker: engine.tracker, ring: engine.ring },
  };
  const { readyMs, captures, slowDown, loads } = engine;
  const ofSeveral = [...several.captures.problems, ...several.loads.problems];
  const problems = [
    ...captures.problems,
    ...loads.problems,
    ...ofSeveral,
    ...failovers.flatMap((each) => each.problems),
  ];
  const proof = { ok: problems.length === 0, problems, host, readyMs, captures, slowDown, loads, several, failovers };
  return { ...proof, ...whatWasSeen(proof) };
}

/** Captures and loads of the bare guest. */
async function proveEngine(accel: 'kvm' | 'tcg', { captures, loads, clock, signal, say }: ProofOptions) {
  const started = clock.now();
  return withTwins({ accel, vcpus: 1 }, async ({ primary, secondary }) => {
    const readyMs = clock.now() - started;
    signal.throwIfAborted();
    say(`${captures} captures, all of RAM compared each time`);
    const captured = await checkCaptures(primary, captures);
    signal.throwIfAborted();
    const slowDown = await measureSlowDown(primary, slowDownRounds);
    signal.throwIfAborted();
    say(`${loads} loads into another QEMU, all of RAM compared each time`);
    const loaded = await checkLoads(primary, secondary, loads);
    const { vm, control } = primary;
    const of = { qemu: vm.qemuVersion, tracker: vm.tracker.kind, ring: control.number('ring') };
    return { ...of, readyMs, captures: captured, slowDown, loads: loaded };
  });
}

/** The same with vCPUs that all run, in fewer rounds. */
function proveSeveral(accel: 'kvm' | 'tcg', { captures, loads, say }: ProofOptions): Promise<Proof['several']> {
  say(`some more with ${severalVcpus} running vCPUs`);
  return withTwins({ accel, vcpus: severalVcpus }, async ({ primary, secondary }) => ({
    vcpus: primary.control.number('vcpus'),
    captures: await checkCaptures(primary, Math.min(severalRounds, captures)),
    loads: await checkLoads(primary, secondary, Math.min(severalRounds, loads)),
  }));
}

async function withTwins<Result>(
  { accel, vcpus }: { accel: 'kvm' | 'tcg'; vcpus: number },
  use: (twins: Awaited<ReturnType<typeof startTwins>>) => Promise<Result>,
): Promise<Result> {
  const root = mkdtempSync('/dev/shm/colo-prove-');
  const newDir = () => mkdtempSync(join(root, 'vm-'));
  try {
    const twins = await startTwins({ machine, accel, vcpus, pages: 200, periodMs: 2 }, newDir);
    const { primary, secondary } = twins;
    try {
      return await use(twins);
    } finally {
      await secondary.close();
      await primary.close();
    }
  } finally {
    rmSync(root, { recursive: true, force: true });
  }
}

/** The demo guest if KVM starts it; it is not built for this, because that takes the network. */
async function linuxUnderKvm(say: (line: string) => void): Promise<Guest | undefined> {
  const guest = await findGuest();
  const { usable, detail } = await probeKvm(guest?.kernel);
  say(`Linux under KVM: ${detail}`);
  return usable ? guest : undefined;
}

async function proveFailover(
  guest: DemoGuest,
  { accel, vcpus }: { accel: 'kvm' | 'tcg'; vcpus: number },
  { clock, signal, say }: ProofOptions,
): Promise<Failover> {
  say(`a failover of the ${guest.kind} guest with TCP clients, its primary killed`);
  const base = { guest: guest.kind, vcpus };
  try {
    const report = await runDemo({
      ...{ name: 'prove', mode: 'colo', fault: 'primary-kill', seconds: failoverSeconds, failovers: 1, verify: true },
      ...{ guest, clock, signal, say: () => undefined, show: () => undefined },
      machine: { accel, type: machine, vcpus },
    });
    return { ...base, ...figuresOf(report) };
  } catch (error) {
    signal.throwIfAborted();
    const none = { checkpoints: 0, pauseMs: null, detectMs: null, takeoverMs: null, gapMsMax: 0 };
    const problems = [`failover of the ${guest.kind} guest: ${errorText(error)}`];
    return { ...base, ok: false, problems, ...none, downloadMibPerSecond: 0, clients: [] };
  }
}

function figuresOf(report: DemoReport): Omit<Failover, 'guest' | 'vcpus'> {
  const download = report.clients.find((client) => client.name === 'download');
  const { checkpoints, failover } = report;
  return {
    ok: report.ok,
    problems: report.problems,
    checkpoints: checkpoints?.count ?? 0,
    pauseMs: checkpoints === null ? null : { p50: checkpoints.pauseMs.p50, p99: checkpoints.pauseMs.p99 },
    detectMs: failover?.detectMs ?? null,
    takeoverMs: failover?.takeoverMs ?? null,
    gapMsMax: Math.max(0, ...report.clients.map((client) => client.gapAfterFaultMsMax)),
    downloadMibPerSecond: Math.round(((download?.received ?? 0) / 2 ** 20 / report.seconds) * 10) / 10,
    clients: report.clients.map((client) => `${client.name}: ${client.detail}`),
  };
}

/** Only what held counts as seen. */
export function whatWasSeen(proof: Omit<Proof, 'seen' | 'notSeen'>): Pick<Proof, 'seen' | 'notSeen'> {
  const { host, captures, loads, several, failovers } = proof;
  const severalHeld =
    several.vcpus > 1 && several.captures.problems.length === 0 && several.loads.problems.length === 0;
  const isKvm = host.accel === 'kvm';
  const under = isKvm ? `KVM (${host.kvm?.module ?? 'of a kind that this kernel does not name'})` : 'TCG';
  const linux = failovers.find((each) => each.guest === 'demo' && each.ok);
  const claims: [holds: boolean, what: string][] = [
    [captures.problems.length === 0, `every page that changed is found, under ${under}`],
    [loads.problems.length === 0, `a load is exact, under ${under}`],
    [failovers.some((each) => each.guest === 'bare' && each.ok), `TCP lives through a failover, under ${under}`],
    [
      isKvm && captures.problems.length === 0 && host.kvm?.hasNestedPaging === true,
      'write tracking with nested paging (EPT or NPT)',
    ],
    [isKvm && linux !== undefined, 'interrupts after a load under KVM, with Linux as the guest'],
    [isKvm && severalHeld, 'more than one running vCPU under KVM'],
    [false, 'guest RAM on huge pages (hugetlbfs), which COLO does not use'],
  ];
  return {
    seen: claims.filter(([holds]) => holds).map(([, what]) => what),
    notSeen: claims.filter(([holds]) => !holds).map(([, what]) => what),
  };
}
