// What a checkpoint costs the guest: the pause and its phases, for an idle guest and for two that write memory, with
// little and with much RAM. `colo bench checkpoint` prints the table, or JSON.
//
// One QEMU at a time, captured again and again while its guest runs. A round captures after the guest has finished a
// turn of writing, so that every round holds at least the pages asked for. The pages are dropped: this measures the
// pause, which pays neither for sending nor for loading.
//
// The guest is Linux with a program that writes (test/functional/qemu-guest.ts), or the bare guest, which runs under
// every KVM and says itself what a capture cost it: right after one it reads a word of each page of 64 MiB, and once
// more. What the first time takes longer is the slow-down: page tables that it has to find again.
//
// Figures of one run compare with each other only; `ratios` are what carries over to another host.

import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { delay, systemClock } from '../src/base/clock.ts';
import { ColoError, errorCodes } from '../src/base/errors.ts';
import { silentLog } from '../src/base/log.ts';
import { type Percentiles, percentiles } from '../src/checkpoint/record.ts';
import { BareVm } from '../src/demo/bare-vm.ts';
import type { CapturePhases } from '../src/qemu/capture-phases.ts';
import { vmFiles } from '../src/qemu/machine.ts';
import { Vm } from '../src/qemu/vm.ts';
import { lastBeat, memoryGuest } from '../test/functional/qemu-guest.ts';

export interface CheckpointBenchOptions {
  /** Captures of each case. */
  rounds: number;
  /**
   * Only the cases whose guest writes as many pages in each turn: many rounds of few cases, for a p99 that is no
   * maximum.
   */
  pages?: number;
  /** What runs the guest; `tcg` when left out. */
  accel?: 'tcg' | 'kvm';
  /** Which guest; when left out Linux under TCG, the bare guest under KVM. */
  guest?: 'linux' | 'bare';
  /** Print JSON instead of the table. */
  json: boolean;
  print?: (text: string) => void;
}

type PhaseName = keyof CapturePhases;

export interface CheckpointCase {
  ramMib: number;
  /** Pages the guest writes in each turn; 0 is an idle guest. */
  pagesPerTurn: number;
  rounds: number;
  dirtyPages: { p50: number; max: number };
  phases: Record<PhaseName, Percentiles>;
  /** The bare guest's first read of 64 MiB after a capture, and the next; null for Linux. */
  firstReadMs: Percentiles | null;
  nextReadMs: Percentiles | null;
}

export interface CheckpointReport {
  host: {
    qemu: string;
    accel: 'tcg' | 'kvm';
    guest: 'linux' | 'bare';
    machine: 'q35';
    vcpus: number;
    tracker: string;
    cores: number;
  };
  cases: CheckpointCase[];
  /**
   * Pause p50 of the larger RAM over the smaller, for each number of pages, and the cost of one more page; null when
   * the cases that it follows from were not asked for.
   */
  ratios: { ramTimes: number; pauseByPages: Record<string, number>; microsecondsPerPage: number | null };
}

const ramSizesMib = [128, 1024];
const pageCounts = [0, 1_000, 10_000];
const phaseNames: PhaseName[] = ['stopMs', 'saveMs', 'scanMs', 'copyMs', 'resumeMs', 'pauseMs'];
const warmUpRounds = 5;
const bootTimeoutMs = 120_000;
const pollMs = 5;

export async function benchCheckpoint(options: CheckpointBenchOptions): Promise<CheckpointReport> {
  const print = options.print ?? ((text: string) => void process.stdout.write(text));
  const counts = pageCounts.filter((count) => options.pages === undefined || options.pages === count);
  if (counts.length === 0)
    throw new ColoError(errorCodes.input, `no case of the benchmark writes ${options.pages} pages`, {
      hint: `one of ${pageCounts.join(', ')}`,
    });
  const cases: CheckpointCase[] = [];
  let host: CheckpointReport['host'] | undefined;
  if (!options.json) print(heading());
  for (const ramMib of ramSizesMib) {
    for (const pagesPerTurn of counts) {
      const { accel = 'tcg', rounds } = options;
      const guest = options.guest ?? (accel === 'kvm' ? 'bare' : 'linux');
      const measured = await measureCase({ ramMib, pagesPerTurn, rounds, accel, guest });
      host = measured.host;
      cases.push(measured.result);
      if (!options.json) print(row(measured.result));
    }
  }
  if (host === undefined) throw new ColoError(errorCodes.input, 'There is nothing to measure.');
  const report = { host, cases, ratios: ratiosOf(cases) };
  print(options.json ? `${JSON.stringify(report, null, 2)}\n` : footer(report));
  return report;
}

interface Case {
  ramMib: number;
  pagesPerTurn: number;
  rounds: number;
  accel: 'tcg' | 'kvm';
  guest: 'linux' | 'bare';
}

/** A machine whose guest writes when a round begins. */
interface Subject {
  vm: Vm;
  /** Ends when the guest has written what the case asks for. */
  turn: () => Promise<void>;
  /** How long the guest takes to read 64 MiB, by its own clock. */
  read?: () => Promise<number>;
  close: () => Promise<void>;
}

async function measureCase(asked: Case) {
  const dir = mkdtempSync('/dev/shm/colo-bench-');
  let subject: Subject | undefined;
  try {
    subject = asked.guest === 'bare' ? await bareSubject(asked, dir) : await linuxSubject(asked, dir);
    const { vm } = subject;
    // As when protection is enabled: the first report of every page is not part of a checkpoint.
    vm.tracker.collect();
    const result = await measure(subject, asked);
    const { accel, guest } = asked;
    const host = { qemu: vm.qemuVersion, accel, guest, machine: 'q35' as const, vcpus: 1 };
    return { result, host: { ...host, tracker: vm.tracker.kind, cores: cpus().length } };
  } finally {
    await subject?.close();
    rmSync(dir, { recursive: true, force: true });
  }
}

async function linuxSubject({ ramMib, pagesPerTurn, accel }: Case, dir: string): Promise<Subject> {
  // An idle guest still counts, four times a second; a writing one rests between its turns, so that they are turns.
  const periodMs = pagesPerTurn === 0 ? 250 : 30;
  const memory = { machine: 'q35' as const, ramBytes: ramMib * 2 ** 20, pages: pagesPerTurn, periodMs, dir };
  const spec = { ...(await memoryGuest(memory)), accel };
  const files = vmFiles(join(dir, 'run'), 0);
  const vm = await Vm.start({ spec, files, paused: false, log: silentLog, clock: systemClock });
  const close = () => vm.kill();
  try {
    await turnsEnd(spec.serialLog, 2);
    return { vm, turn: () => turnsEnd(spec.serialLog, 1), close };
  } catch (error) {
    await close();
    throw error;
  }
}

async function bareSubject({ ramMib, pagesPerTurn, accel }: Case, dir: string): Promise<Subject> {
  const given = { machine: 'q35' as const, accel, ramBytes: ramMib * 2 ** 20, dir, hasCard: false, freeRun: false };
  const bare = await BareVm.start(given);
  const close = () => bare.close();
  try {
    await bare.ready();
    await bare.turn(pagesPerTurn);
    return { vm: bare.vm, turn: () => bare.turn(pagesPerTurn), read: () => bare.read(), close };
  } catch (error) {
    await close();
    throw error;
  }
}

/** Waits until the guest has ended `turns` more turns. */
async function turnsEnd(serialLog: string, turns: number): Promise<void> {
  const now = () => (existsSync(serialLog) ? lastBeat(serialLog) : 0);
  const wanted = now() + turns;
  const deadlineMs = systemClock.now() + bootTimeoutMs;
  while (now() < wanted) {
    if (systemClock.now() > deadlineMs) throw new ColoError(errorCodes.timeout, 'The guest of the benchmark hangs.');
    await delay(pollMs);
  }
}

async function measure(subject: Subject, { ramMib, pagesPerTurn, rounds }: Case): Promise<CheckpointCase> {
  const { vm, turn, read } = subject;
  const phases: CapturePhases[] = [];
  const dirtyPages: number[] = [];
  const reads: { first: number; next: number }[] = [];
  for (let round = -warmUpRounds; round < rounds; round++) {
    await turn();
    const capture = await vm.capture({ onStopped: () => undefined });
    capture.release();
    const first = await read?.();
    const next = await read?.();
    if (round < 0) continue;
    phases.push(capture.phases);
    dirtyPages.push(capture.dirtyPages);
    if (first !== undefined && next !== undefined) reads.push({ first, next });
  }
  const percentilesOf = (name: PhaseName) => percentiles(phases.map((each) => each[name]));
  return {
    ...{ ramMib, pagesPerTurn, rounds },
    dirtyPages: percentiles(dirtyPages),
    phases: Object.fromEntries(phaseNames.map((name) => [name, percentilesOf(name)])) as Record<PhaseName, Percentiles>,
    firstReadMs: reads.length === 0 ? null : percentiles(reads.map(({ first }) => first)),
    nextReadMs: reads.length === 0 ? null : percentiles(reads.map(({ next }) => next)),
  };
}

function ratiosOf(cases: readonly CheckpointCase[]): CheckpointReport['ratios'] {
  const [small = 0, large = 0] = ramSizesMib;
  const find = (ramMib: number, pages: number) =>
    cases.find((each) => each.ramMib === ramMib && each.pagesPerTurn === pages);
  const pause = (ramMib: number, pages: number) => find(ramMib, pages)?.phases.pauseMs.p50 ?? 0;
  const [, middle = 0, most = 0] = pageCounts;
  const counts = new Set(cases.map(({ pagesPerTurn }) => pagesPerTurn));
  const morePages = (find(small, most)?.dirtyPages.p50 ?? 0) - (find(small, middle)?.dirtyPages.p50 ?? 0);
  const ofMorePages = ((pause(small, most) - pause(small, middle)) * 1000) / morePages;
  return {
    ramTimes: large / small,
    pauseByPages: Object.fromEntries([...counts].map((pages) => [pages, pause(large, pages) / pause(small, pages)])),
    microsecondsPerPage: counts.has(middle) && counts.has(most) ? ofMorePages : null,
  };
}

const columnWidth = 12;

function columns(cells: readonly string[]): string {
  return `${cells.map((cell) => cell.padStart(columnWidth)).join('')}\n`;
}

function heading(): string {
  const steps = ['dirty p50', 'stop', 'save', 'scan', 'copy', 'resume', 'PAUSE', 'first read', 'next read'];
  return `p50 / p99 in ms\n${columns(['RAM MiB', 'written', ...steps])}`;
}

function row(each: CheckpointCase): string {
  const text = (ms: Percentiles | null) => (ms === null ? '-' : `${ms.p50.toFixed(2)}/${ms.p99.toFixed(2)}`);
  const times = [...phaseNames.map((name) => each.phases[name]), each.firstReadMs, each.nextReadMs].map(text);
  return columns([String(each.ramMib), String(each.pagesPerTurn), String(each.dirtyPages.p50), ...times]);
}

function footer({ host, ratios }: CheckpointReport): string {
  const byPages = Object.entries(ratios.pauseByPages).map(([pages, ratio]) => `${ratio.toFixed(2)} at ${pages} pages`);
  return [
    `QEMU ${host.qemu}, ${host.accel}, ${host.guest} guest, ${host.machine}, ${host.vcpus} vCPU, tracker ` +
      `${host.tracker}, ${host.cores} cores`,
    `pause with ${ratios.ramTimes} times the RAM: ${byPages.join(', ')} (times)`,
    ...(ratios.microsecondsPerPage === null ? [] : [`one more page: ${ratios.microsecondsPerPage.toFixed(2)} us`]),
    '',
  ].join('\n');
}
