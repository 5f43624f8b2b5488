// What a checkpoint costs the guest: the pause and its phases, for an idle guest and for two that write memory, with
// little and with much RAM. `colo bench checkpoint` prints the table, or JSON.
//
// One QEMU at a time, captured again and again while its guest runs (test/functional/qemu-guest.ts). A round captures
// after the guest has finished a turn of writing, so that every round holds at least the pages asked for. The pages are
// dropped: this measures the pause, which pays neither for sending nor for loading.
//
// Figures of one run compare with each other only; `ratios` are what carries over to another host.

import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { delay, systemClock } from '../src/base/clock.ts';
import { ColoError, errorCodes } from '../src/base/errors.ts';
import { silentLog } from '../src/base/log.ts';
import { type Percentiles, percentiles } from '../src/checkpoint/record.ts';
import { vmFiles } from '../src/qemu/machine.ts';
import { type CapturePhases, Vm } from '../src/qemu/vm.ts';
import { lastBeat, memoryGuest } from '../test/functional/qemu-guest.ts';

export interface CheckpointBenchOptions {
  /** Captures of each case. */
  rounds: number;
  /** Only the cases whose guest writes as many pages in each turn: many rounds of few cases, for a p99 that is no maximum. */
  pages?: number;
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
}

export interface CheckpointReport {
  host: { qemu: string; accel: 'tcg'; machine: 'q35'; vcpus: number; tracker: string; cores: number };
  cases: CheckpointCase[];
  /**
   * Pause p50 of the larger RAM over the smaller, for each number of pages, and the cost of one more page; null when the cases
   * that it follows from were not asked for.
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
      const measured = await measureCase(ramMib, pagesPerTurn, options.rounds);
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

async function measureCase(ramMib: number, pagesPerTurn: number, rounds: number) {
  const dir = mkdtempSync('/dev/shm/colo-bench-');
  let vm: Vm | undefined;
  try {
    const ramBytes = ramMib * 2 ** 20;
    // An idle guest still counts, four times a second; a writing one rests between its turns, so that they are turns.
    const periodMs = pagesPerTurn === 0 ? 250 : 30;
    const spec = await memoryGuest({ machine: 'q35', ramBytes, pages: pagesPerTurn, periodMs, dir });
    const files = vmFiles(join(dir, 'run'), 0);
    vm = await Vm.start({ spec, files, paused: false, log: silentLog, clock: systemClock });
    await turnsEnd(spec.serialLog, 2);
    // As when protection is enabled: the first report of every page is not part of a checkpoint.
    vm.tracker.collect();
    const result = await measure(vm, spec.serialLog, { ramMib, pagesPerTurn, rounds });
    const host = { qemu: vm.qemuVersion, accel: spec.accel, machine: spec.machine, vcpus: spec.vcpus };
    return { result, host: { ...host, tracker: vm.tracker.kind, cores: cpus().length } as CheckpointReport['host'] };
  } finally {
    await vm?.kill();
    rmSync(dir, { recursive: true, force: true });
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

async function measure(
  vm: Vm,
  serialLog: string,
  target: { ramMib: number; pagesPerTurn: number; rounds: number },
): Promise<CheckpointCase> {
  const phases: CapturePhases[] = [];
  const dirtyPages: number[] = [];
  for (let round = -warmUpRounds; round < target.rounds; round++) {
    await turnsEnd(serialLog, 1);
    const capture = await vm.capture({ onStopped: () => undefined });
    capture.release();
    if (round < 0) continue;
    phases.push(capture.phases);
    dirtyPages.push(capture.dirtyPages);
  }
  const percentilesOf = (name: PhaseName) => percentiles(phases.map((each) => each[name]));
  return {
    ...target,
    dirtyPages: percentiles(dirtyPages),
    phases: Object.fromEntries(phaseNames.map((name) => [name, percentilesOf(name)])) as Record<PhaseName, Percentiles>,
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

const columnWidth = 13;

function columns(cells: readonly string[]): string {
  return `${cells.map((cell) => cell.padStart(columnWidth)).join('')}\n`;
}

function heading(): string {
  return `p50 / p99 in ms\n${columns(['RAM MiB', 'written', 'dirty p50', 'stop', 'save', 'scan', 'copy', 'resume', 'PAUSE'])}`;
}

function row(each: CheckpointCase): string {
  const times = phaseNames.map((name) => `${each.phases[name].p50.toFixed(2)}/${each.phases[name].p99.toFixed(2)}`);
  return columns([String(each.ramMib), String(each.pagesPerTurn), String(each.dirtyPages.p50), ...times]);
}

function footer({ host, ratios }: CheckpointReport): string {
  const byPages = Object.entries(ratios.pauseByPages).map(([pages, ratio]) => `${ratio.toFixed(2)} at ${pages} pages`);
  return [
    `QEMU ${host.qemu}, ${host.accel}, ${host.machine}, ${host.vcpus} vCPU, tracker ${host.tracker}, ${host.cores} cores`,
    `pause with ${ratios.ramTimes} times the RAM: ${byPages.join(', ')} (times)`,
    ...(ratios.microsecondsPerPage === null ? [] : [`one more page: ${ratios.microsecondsPerPage.toFixed(2)} us`]),
    '',
  ].join('\n');
}
