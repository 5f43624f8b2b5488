// Every clock of the bare guest read at one moment, which this host knows between two bounds: the guest reads them
// after it was asked and before it says so. However late a busy host gets there, the moment lies in between, so that a
// test may compare.

import type { BareVm } from '../../src/demo/bare-vm.ts';

/** Milliseconds each; undefined where the machine has no such clock. */
export interface ClockSample {
  /** CLOCK_MONOTONIC of this host, before and after. */
  fromMs: number;
  toMs: number;
  clocks: Record<ClockName, number | undefined>;
}

export const clockNames = ['tsc', 'kvmclock', 'pmTimer', 'hpet'] as const;
export type ClockName = (typeof clockNames)[number];

const pmTicksPerMs = 3579.545;
const pmWrapMs = 2 ** 24 / pmTicksPerMs;
const samples = 15;

function hostMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}

/** The narrowest of some readings. */
export async function sampleClocks(bare: BareVm): Promise<ClockSample> {
  let best: ClockSample | undefined;
  for (let count = 0; count < samples; count++) {
    const fromMs = hostMs();
    await bare.clocks();
    const toMs = hostMs();
    if (best === undefined || toMs - fromMs < best.toMs - best.fromMs) best = { fromMs, toMs, clocks: read(bare) };
  }
  if (best === undefined) throw new Error('bug: no clock was read');
  return best;
}

function read({ control }: BareVm): ClockSample['clocks'] {
  const some = (value: number) => (value === 0 ? undefined : value);
  return {
    tsc: control.ms('tsc'),
    kvmclock: some(control.number('kvmclock_ns') / 1e6),
    pmTimer: some(control.number('pm_timer') / pmTicksPerMs),
    hpet: some((control.number('hpet') * control.number('hpet_fs')) / 1e12),
  };
}

/** How much further the clock went than this host did from one sample to the other, at least and at most. */
export function gain(
  name: ClockName,
  first: ClockSample,
  second: ClockSample,
): { least: number; most: number } | undefined {
  const [before, after] = [first.clocks[name], second.clocks[name]];
  if (before === undefined || after === undefined) return undefined;
  let passed = after - before;
  const about = second.fromMs - first.fromMs;
  if (name === 'pmTimer') passed += Math.round((about - passed) / pmWrapMs) * pmWrapMs;
  return { least: passed - (second.toMs - first.fromMs), most: passed - (second.fromMs - first.toMs) };
}
