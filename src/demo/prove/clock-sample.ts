// Every clock of the bare guest read at one moment, which this host knows between two bounds: the guest reads them
// after it was asked and before it says so. However late a busy host gets there, the moment lies in between, so that
// figures of two samples compare.
//
//   host    from ── ask ─────────────────────── seen ── to         offset of a clock: what it showed - the moment,
//   guest              ──── reads all clocks ────                  so between clock - to and clock - from
//
// A clock that wraps is told by what the host's has done since: it may be off by half of its way round at most.

import { setImmediate } from 'node:timers/promises';
import type { ControlPage } from '../../../guest/bare/control.ts';
import { delay, systemClock } from '../../base/clock.ts';
import { ColoError, errorCodes } from '../../base/errors.ts';

export const clockNames = ['tsc', 'kvmclock', 'pmTimer', 'hpet', 'lapic', 'pit'] as const;
export type ClockName = (typeof clockNames)[number];

/** Milliseconds each; undefined where the machine has no such clock. */
export interface ClockSample {
  /** CLOCK_MONOTONIC of this host, before and after. */
  fromMs: number;
  toMs: number;
  clocks: Record<ClockName, number | undefined>;
  /** Whole seconds of the real-time clock's day; undefined without one. */
  rtcS: number | undefined;
}

/** Least and most, in ms. */
export interface Bounds {
  least: number;
  most: number;
}

export const clockTexts: Record<ClockName, string> = {
  tsc: 'TSC',
  kvmclock: 'kvmclock',
  pmTimer: 'PM timer',
  hpet: 'HPET',
  lapic: 'local APIC timer',
  pit: 'PIT',
};

const pmTicksPerMs = 3579.545;
const pitTicksPerMs = 1193.182;
const lapicTicksPerMs = 1e6;
/** The way round of those that wrap. */
const wrapMs: Partial<Record<ClockName, number>> = {
  pmTimer: 2 ** 24 / pmTicksPerMs,
  lapic: (2 ** 32 - 1) / lapicTicksPerMs,
  pit: 2 ** 16 / pitTicksPerMs,
};

const samplesMax = 15;
const narrowMs = 0.4;
const spinMs = 5;
const pollMs = 1;
const answerTimeoutMs = 180_000;

function hostMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}

/** Has the guest read its clocks, and waits for it: at first without rest, so that the bounds are narrow. */
async function ask(control: ControlPage, timeoutMs: number): Promise<void> {
  const wanted = control.get('clock_request') + 1n;
  control.set('clock_request', wanted);
  const asked = systemClock.now();
  while (control.get('clock_done') !== wanted) {
    const waited = systemClock.now() - asked;
    if (waited > timeoutMs) throw new ColoError(errorCodes.timeout, 'the bare guest does not read its clocks');
    await (waited < spinMs ? setImmediate() : delay(pollMs));
  }
}

async function sampleOnce(control: ControlPage, timeoutMs = answerTimeoutMs): Promise<ClockSample> {
  const fromMs = hostMs();
  await ask(control, timeoutMs);
  return { fromMs, toMs: hostMs(), ...read(control) };
}

/** The narrowest of some readings; an error when the guest does not answer in time. */
export async function sampleClocks(
  { control }: { control: ControlPage },
  timeoutMs = answerTimeoutMs,
): Promise<ClockSample> {
  let best = await sampleOnce(control, timeoutMs);
  for (let count = 1; count < samplesMax && best.toMs - best.fromMs > narrowMs; count++) {
    const next = await sampleOnce(control, timeoutMs);
    if (next.toMs - next.fromMs < best.toMs - best.fromMs) best = next;
  }
  return best;
}

function read(control: ControlPage): Pick<ClockSample, 'clocks' | 'rtcS'> {
  const some = (value: number) => (value === 0 ? undefined : value);
  /** One that counts down; 0 may be any of its moments, and is none of a machine without it. */
  const down = (name: 'lapic' | 'pit', perMs: number) => {
    const left = some(control.number(name));
    return left === undefined ? undefined : -left / perMs;
  };
  return {
    rtcS: some(control.number('rtc_s')),
    clocks: {
      tsc: control.ms('tsc'),
      kvmclock: some(control.number('kvmclock_ns') / 1e6),
      pmTimer: some(control.number('pm_timer') / pmTicksPerMs),
      hpet: some((control.number('hpet') * control.number('hpet_fs')) / 1e12),
      lapic: down('lapic', lapicTicksPerMs),
      pit: down('pit', pitTicksPerMs),
    },
  };
}

/** How much further the clock went than this host did from one sample to the other, at least and at most. */
export function gain(name: ClockName, first: ClockSample, second: ClockSample): Bounds | undefined {
  const [before, after] = [first.clocks[name], second.clocks[name]];
  if (before === undefined || after === undefined) return undefined;
  let passed = after - before;
  const wrap = wrapMs[name];
  const about = (second.fromMs + second.toMs - first.fromMs - first.toMs) / 2;
  if (wrap !== undefined) passed += Math.round((about - passed) / wrap) * wrap;
  return { least: passed - (second.toMs - first.fromMs), most: passed - (second.fromMs - first.toMs) };
}

/** How far a clock of the second guest is behind that of the first, as surely as two samples of one host tell. */
export function lagOf(name: ClockName, first: ClockSample, second: ClockSample): Bounds | undefined {
  const bounds = gain(name, first, second);
  return bounds === undefined ? undefined : { least: -bounds.most, most: -bounds.least };
}

/**
 * How far the second guest's real-time clock is behind the first one's: it shows whole seconds, so each is watched
 * until it goes to the next one. Undefined without one.
 */
export async function rtcLag(first: { control: ControlPage }, second: { control: ControlPage }) {
  const [one, other] = await Promise.all([rtcEdge(first.control), rtcEdge(second.control)]);
  if (one === undefined || other === undefined) return undefined;
  // The edges of one second, whichever of both was seen first.
  const whole = (one.second - other.second) * 1000;
  return { least: other.fromMs - one.toMs + whole, most: other.toMs - one.fromMs + whole };
}

const rtcEdgeMs = 2_500;

async function rtcEdge(control: ControlPage): Promise<{ second: number; fromMs: number; toMs: number } | undefined> {
  let before = await sampleOnce(control);
  const deadline = systemClock.now() + rtcEdgeMs;
  while (before.rtcS !== undefined && systemClock.now() < deadline) {
    const now = await sampleOnce(control);
    // Midnight is no edge.
    if (now.rtcS === before.rtcS + 1) return { second: now.rtcS, fromMs: before.fromMs, toMs: now.toMs };
    before = now;
  }
  return undefined;
}

/**
 * The most of a step back that the guest has noticed, by clock, in ms; empty when none went back. A clock that wraps
 * within seconds says nothing of it.
 */
export function stepsBack(control: ControlPage): Partial<Record<ClockName, number>> {
  const steps: [ClockName, number][] = [
    ['tsc', control.ms('tsc_back')],
    ['kvmclock', control.number('kvmclock_back') / 1e6],
    ['hpet', (control.number('hpet_back') * control.number('hpet_fs')) / 1e12],
  ];
  return Object.fromEntries(steps.filter(([, step]) => step > 0));
}
