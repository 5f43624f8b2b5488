// Does a captured guest go on exactly in another QEMU, again and again? Each round the primary works and answers
// numbered datagrams, is captured, and its state is loaded into the secondary, which ran on from the round before: its
// RAM must then be the primary's, byte for byte; it must count the datagrams on from where the primary was, and find
// nothing wrong with its memory. How far its clocks are behind the primary's is measured while both run.

import { barePorts } from '../../../guest/bare/guest.ts';
import { systemClock } from '../../base/clock.ts';
import { SecondaryRam } from '../../checkpoint/apply.ts';
import { type Percentiles, percentiles } from '../../checkpoint/record.ts';
import { alignClock, tscTicksPerMs } from '../../qemu/device-state.ts';
import { ramHash } from '../../qemu/hash.ts';
import type { Capture } from '../../qemu/vm.ts';
import { BareVm, type BareVmOptions } from '../bare-vm.ts';

export interface LoadReport {
  loads: number;
  /** Loads after which everything was as it has to be. */
  exact: number;
  loadMs: Percentiles;
  stateBytes: number;
  /** How far the secondary's clocks were behind when both ran; kvmclock where the guest has it. */
  lagMs: { tsc: Percentiles; kvmclock: Percentiles | undefined };
  problems: string[];
}

/** What stands between a capture and the guest that runs on from it. */
const restartGuessMs = 9;
const datagramsPerRound = 10;

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

export async function checkLoads(primary: BareVm, secondary: BareVm, loads: number): Promise<LoadReport> {
  const side = new SecondaryRam(secondary.vm.ram, Buffer.alloc(secondary.vm.ram.length));
  const [ofPrimary, ofSecondary] = [new Exchange(primary, 'primary'), new Exchange(secondary, 'secondary')];
  const [loadMs, tscLag, kvmclockLag]: [number[], number[], number[]] = [[], [], []];
  const problems: string[] = [];
  let [count, stateBytes, exact] = [0, 0, 0];
  await copyAll(primary, side);
  for (let round = 0; round < loads; round++) {
    const before = problems.length;
    const note = (problem: string | undefined) => problem !== undefined && problems.push(`load ${round}: ${problem}`);
    note(await ofPrimary.from(count));
    count += datagramsPerRound;
    await primary.turns(1);
    const { capture, hash, turns, at } = await captured(primary);
    stateBytes = capture.deviceState.length;
    if (round > 0) await secondary.vm.stop();
    const loaded = await load(secondary, side, capture, at);
    loadMs.push(loaded);
    if (ramHash(secondary.vm.ram) !== hash) note('the RAM of both is not the same');
    if (secondary.control.get('turns') !== turns) note('the turns of both are not the same');
    await secondary.vm.resume();
    note(await ofSecondary.from(count));
    await secondary.turns(1);
    await everyVcpuRuns(secondary);
    if (secondary.control.errors > 0) note(`the guest found ${secondary.control.errors} errors`);
    const lag = lagOf(primary, secondary);
    tscLag.push(lag.tscMs);
    if (lag.kvmclockMs !== undefined) kvmclockLag.push(lag.kvmclockMs);
    if (problems.length === before) exact += 1;
  }
  if (primary.control.errors > 0) problems.push(`the primary's guest found ${primary.control.errors} errors`);
  return {
    ...{ loads, exact, loadMs: percentiles(loadMs), stateBytes, problems },
    lagMs: { tsc: percentiles(tscLag), kvmclock: kvmclockLag.length === 0 ? undefined : percentiles(kvmclockLag) },
  };
}

/** The primary's whole RAM: later captures hold what was written since. */
async function copyAll({ vm }: BareVm, { ram, shadow }: SecondaryRam): Promise<void> {
  const beforeResume = () => void vm.ram.copy(shadow);
  (await vm.capture({ onStopped: () => undefined, beforeResume })).release();
  shadow.copy(ram);
}

async function captured({ vm, control }: BareVm) {
  let [hash, turns, at] = ['', 0n, 0];
  const beforeResume = () => {
    at = systemClock.now();
    hash = ramHash(vm.ram);
    turns = control.get('turns');
  };
  return { capture: await vm.capture({ onStopped: () => undefined, beforeResume }), hash, turns, at };
}

/** Further vCPUs count their own turns; the guest tells those of the slowest. */
async function everyVcpuRuns(guest: BareVm): Promise<void> {
  if (guest.control.number('vcpus') < 2) return;
  const before = guest.control.get('vcpu_turns');
  await guest.until('every vCPU runs on', () => guest.control.get('vcpu_turns') > before + 1n);
}

/** As a secondary does it (node/secondary/applier.ts); how long QEMU took to load. */
async function load({ vm }: BareVm, side: SecondaryRam, capture: Capture, at: number): Promise<number> {
  side.rollback(vm.tracker.collect());
  side.writeBatch(capture.runs, capture.pages.subarray(0, capture.runs.bytes));
  const ticksPerMs = tscTicksPerMs(capture.deviceState);
  const lagMs = systemClock.now() - at + restartGuessMs;
  const startsExactly = vm.startClocksFrom(capture.clocksOf);
  if (!startsExactly && ticksPerMs !== undefined) alignClock(capture.deviceState, lagMs, ticksPerMs);
  const { loadMs } = await vm.load(capture.deviceState);
  side.restoreAfterLoad(vm.tracker.collect());
  capture.release();
  return loadMs;
}

/** Both run, and write their clocks down in every turn of their loops. */
function lagOf(primary: BareVm, secondary: BareVm): { tscMs: number; kvmclockMs: number | undefined } {
  const [a, b] = [primary.control, secondary.control];
  const [tsc, kvmclock] = [a.get('tsc') - b.get('tsc'), a.get('kvmclock_ns') - b.get('kvmclock_ns')];
  return {
    tscMs: Number(tsc) / a.number('ticks_per_ms'),
    kvmclockMs: a.get('kvmclock_ns') === 0n ? undefined : Number(kvmclock) / 1e6,
  };
}
