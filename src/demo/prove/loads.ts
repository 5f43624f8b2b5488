// Does a captured guest go on exactly in another QEMU, again and again? Each round the primary works and answers
// numbered datagrams, is captured, and its state is loaded into the secondary, which ran on from the round before: its
// RAM must then be the primary's, byte for byte; it must count the datagrams on from where the primary was, and find
// nothing wrong with its memory. How far its clocks are behind the primary's is measured while both run.

import { barePorts } from '../../../guest/bare/guest.ts';
import { delay, systemClock } from '../../base/clock.ts';
import { SecondaryRam } from '../../checkpoint/apply.ts';
import { type Percentiles, percentiles } from '../../checkpoint/record.ts';
import { GuestClock, RestartGuess } from '../../node/secondary/guest-clock.ts';
import { alignClock, guestTime, tscTicksPerMs } from '../../qemu/device-state.ts';
import { ramHash } from '../../qemu/hash.ts';
import type { Capture } from '../../qemu/vm.ts';
import { BareVm, type BareVmOptions } from '../bare-vm.ts';
import { type Bounds, type ClockName, clockNames, lagOf, rtcLag, sampleClocks } from './clock-sample.ts';

export interface LoadReport {
  loads: number;
  /** Loads after which everything was as it has to be. */
  exact: number;
  loadMs: Percentiles;
  stateBytes: number;
  /** How far the secondary's clocks were from the primary's when both ran; those that the guest has. */
  clocks: Partial<Record<ClockName | 'rtc', ClockLag>>;
  problems: string[];
}

export interface ClockLag {
  /** Behind; negative: ahead. */
  lagMs: Percentiles;
  /** How far, either way. */
  apartMs: Percentiles;
  /** What the bounds of each figure leave open, p50. */
  openMs: number;
}

const datagramsPerRound = 10;
/** A real-time clock is watched for up to a second. */
const roundsPerRtc = 10;

/** Two guests that run: the second from the first one's state. Both are the caller's, to close. */
export async function startTwins(
  options: Omit<BareVmOptions, 'dir' | 'start'>,
  newDir: () => string,
): Promise<{ primary: BareVm; secondary: BareVm }> {
  const primary = await BareVm.start({ ...options, dir: newDir() });
  try {
    await primary.ready();
    const vmstateTemplate = await primary.vm.makeTemplate();
    const secondary = await BareVm.start({ ...options, dir: newDir(), start: { paused: true, vmstateTemplate } });
    return { primary, secondary };
  } catch (error) {
    await primary.close();
    throw error;
  }
}

/** Numbered datagrams to a guest, and their answers. */
class Exchange {
  private readonly guest: BareVm;
  private readonly name: string;
  private answers: string[] = [];
  private said = 0;

  constructor(guest: BareVm, name: string) {
    this.guest = guest;
    this.name = name;
    // Answers to whoever talked to it before may still come.
    guest.card.onDatagram = (text) => text.includes(`${name} `) && this.answers.push(text);
  }

  /** Says some, waits for as many answers; a problem when they do not count on from `count`. */
  async from(count: number): Promise<string | undefined> {
    this.answers = [];
    const expected: string[] = [];
    for (let index = 0; index < datagramsPerRound; index++) {
      const text = `${this.name} ${this.said++}`;
      expected.push(`${count + index + 1} ${text}`);
      this.guest.card.say(barePorts.numberedUdp, text);
    }
    await this.guest.until('it has answered', () => this.answers.length >= datagramsPerRound);
    const wrong = expected.findIndex((text, index) => this.answers[index] !== text);
    if (wrong < 0) return undefined;
    return `${this.name} answered "${this.answers[wrong]}" and not "${expected[wrong]}"`;
  }
}

/** `clocks`: whether to measure them, which takes longer than the load. */
export async function checkLoads(
  primary: BareVm,
  secondary: BareVm,
  loads: number,
  { clocks = true }: { clocks?: boolean } = {},
): Promise<LoadReport> {
  const side = new Receiver(secondary);
  const [ofPrimary, ofSecondary] = [new Exchange(primary, 'primary'), new Exchange(secondary, 'secondary')];
  const loadMs: number[] = [];
  const lags = new Lags();
  const problems: string[] = [];
  let [count, stateBytes, exact] = [0, 0, 0];
  await side.copyAll(primary);
  for (let round = 0; round < loads; round++) {
    const before = problems.length;
    const note = (problem: string | undefined) => problem !== undefined && problems.push(`load ${round}: ${problem}`);
    note(await ofPrimary.from(count));
    count += datagramsPerRound;
    await primary.turns(1);
    const { capture, hash, turns, at } = await captured(primary);
    stateBytes = capture.deviceState.length;
    loadMs.push(await side.load(capture, at));
    if (ramHash(secondary.vm.ram) !== hash) note('the RAM of both is not the same');
    if (secondary.control.get('turns') !== turns) note('the turns of both are not the same');
    await side.resume();
    note(await ofSecondary.from(count));
    await secondary.turns(1);
    await everyVcpuRuns(secondary);
    if (secondary.control.errors > 0) note(`the guest found ${secondary.control.errors} errors`);
    if (clocks) await lags.measure(primary, secondary, round % roundsPerRtc === 0);
    if (problems.length === before) exact += 1;
  }
  if (primary.control.errors > 0) problems.push(`the primary's guest found ${primary.control.errors} errors`);
  return { loads, exact, loadMs: percentiles(loadMs), stateBytes, problems, clocks: lags.report() };
}

/** How far the clocks of two guests that run are apart, by clock. */
class Lags {
  private readonly seen = new Map<ClockName | 'rtc', Bounds[]>();

  async measure(primary: BareVm, secondary: BareVm, withRtc: boolean): Promise<void> {
    const [first, second] = [await sampleClocks(primary), await sampleClocks(secondary)];
    for (const name of clockNames) this.note(name, lagOf(name, first, second));
    if (withRtc) this.note('rtc', await rtcLag(primary, secondary));
  }

  report(): LoadReport['clocks'] {
    const middle = ({ least, most }: Bounds) => (least + most) / 2;
    const entries = [...this.seen].map(([name, all]): [string, ClockLag] => [
      name,
      {
        lagMs: percentiles(all.map(middle)),
        apartMs: percentiles(all.map((each) => Math.abs(middle(each)))),
        openMs: percentiles(all.map(({ least, most }) => (most - least) / 2)).p50,
      },
    ]);
    return Object.fromEntries(entries);
  }

  private note(name: ClockName | 'rtc', bounds: Bounds | undefined): void {
    if (bounds === undefined) return;
    const all = this.seen.get(name) ?? [];
    all.push(bounds);
    this.seen.set(name, all);
  }
}

async function captured({ vm, control }: BareVm) {
  let [hash, turns, at] = ['', 0n, 0];
  const beforeResume = () => {
    hash = ramHash(vm.ram);
    turns = control.get('turns');
    at = systemClock.now();
  };
  const capture = await vm.capture({ onStopped: () => undefined, beforeResume });
  return { capture, hash, turns, at: at + capture.phases.resumeMs };
}

/** Further vCPUs count their own turns; the guest tells those of the slowest. */
async function everyVcpuRuns(guest: BareVm): Promise<void> {
  if (guest.control.number('vcpus') < 2) return;
  const before = guest.control.get('vcpu_turns');
  await guest.until('every vCPU runs on', () => guest.control.get('vcpu_turns') > before + 1n);
}

/** The other guest's machine, into which states are loaded as a secondary does it (node/secondary/applier.ts). */
class Receiver {
  private readonly vm: BareVm['vm'];
  private readonly side: SecondaryRam;
  private readonly guestClock = new GuestClock();
  private readonly restartGuess = new RestartGuess();
  private runs = false;
  private aligned: { at: number; clockMs: number; plannedMs?: number } = { at: 0, clockMs: 0 };

  constructor({ vm }: BareVm) {
    this.vm = vm;
    this.side = new SecondaryRam(vm.ram, Buffer.alloc(vm.ram.length));
  }

  /** The primary's whole RAM: later captures hold what was written since. */
  async copyAll({ vm }: BareVm): Promise<void> {
    const { ram, shadow } = this.side;
    const beforeResume = () => void vm.ram.copy(shadow);
    (await vm.capture({ onStopped: () => undefined, beforeResume })).release();
    shadow.copy(ram);
  }

  /** `primaryRan`: again, from then on. How long QEMU took to load. */
  async load(capture: Capture, primaryRan: number): Promise<number> {
    const { vm, side } = this;
    if (this.runs) await vm.stop();
    this.guestClock.stopped(systemClock.now());
    side.rollback(vm.tracker.collect());
    side.writeBatch(capture.runs, capture.pages.subarray(0, capture.runs.bytes));
    this.align(capture, primaryRan);
    const { loadMs } = await vm.load(capture.deviceState);
    side.restoreAfterLoad(vm.tracker.collect());
    capture.release();
    return loadMs;
  }

  async resume(): Promise<void> {
    const { at, clockMs, plannedMs } = this.aligned;
    const readyMs = systemClock.now() - at;
    if (plannedMs !== undefined) await delay(this.restartGuess.waitMs(plannedMs, readyMs));
    const restartAt = systemClock.now();
    this.guestClock.starting(clockMs, restartAt);
    await this.vm.resume();
    this.runs = true;
    this.restartGuess.took(readyMs, systemClock.now() - restartAt);
  }

  private align({ deviceState, clocksOf }: Capture, primaryRan: number): void {
    const at = systemClock.now();
    const clockMs = Number(guestTime(deviceState)?.clockNs ?? 0n) / 1e6;
    this.aligned = { at, clockMs };
    if (this.vm.startClocksFrom(clocksOf)) return;
    const restartMs = this.restartGuess.ms;
    const { lagMs, aheadMs } = this.guestClock.plan(clockMs, at + restartMs - primaryRan);
    if (!alignClock(deviceState, lagMs, tscTicksPerMs(deviceState) ?? 0)) return;
    this.aligned = { at, clockMs: clockMs + lagMs, plannedMs: restartMs + aheadMs };
  }
}
