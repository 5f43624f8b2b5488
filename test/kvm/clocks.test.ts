// Time under KVM and TCG, with a guest that reads all its clocks: over pauses, and across loads.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { after, describe, type TestContext, test } from 'node:test';
import { PageRuns } from '../../src/base/page-runs.ts';
import { BareVm, type BareVmOptions } from '../../src/demo/bare-vm.ts';
import {
  type ClockName,
  type ClockSample,
  clockNames,
  gain,
  sampleClocks,
  stepsBack,
} from '../../src/demo/prove/clock-sample.ts';
import { GuestClock } from '../../src/node/secondary/guest-clock.ts';
import { alignClock, guestTime, tscTicksPerMs } from '../../src/qemu/device-state.ts';
import type { Capture } from '../../src/qemu/vm.ts';
import { kvmRefusal } from './kvm.ts';

const refusal = await kvmRefusal();
const root = mkdtempSync('/dev/shm/colo-clock-test-');
after(() => rmSync(root, { recursive: true, force: true }));

async function startGuest(context: TestContext, options: Partial<BareVmOptions> = {}): Promise<BareVm> {
  const dir = mkdtempSync(`${root}/vm-`);
  const bare = await BareVm.start({ accel: 'kvm', machine: 'q35', hasCard: false, freeRun: false, ...options, dir });
  context.after(() => bare.close());
  return bare;
}

/** What a clock may be off beside the bounds of its samples: its rate is measured by the guest, to some millionths. */
function toleranceMs(first: ClockSample, second: ClockSample): number {
  return 1 + (second.toMs - first.fromMs) * 2e-4;
}

/** What each clock gained on the host, where that is certain; 0 is within the bounds. */
function gains(first: ClockSample, second: ClockSample): Partial<Record<ClockName, number>> {
  const tolerance = toleranceMs(first, second);
  const found: Partial<Record<ClockName, number>> = {};
  for (const name of clockNames) {
    const bounds = gain(name, first, second);
    if (bounds === undefined) continue;
    found[name] = bounds.least > tolerance ? bounds.least : bounds.most < -tolerance ? bounds.most : 0;
  }
  return found;
}

/** The secondary's part of a checkpoint, as an applier does it; `before` and `after` the load. */
class Receiver {
  readonly bare: BareVm;
  private readonly shadow: Buffer;
  private runs = false;

  constructor(bare: BareVm) {
    this.bare = bare;
    this.shadow = Buffer.alloc(bare.vm.ram.length);
  }

  async apply(capture: Capture, steps: { stopped: () => void; starting: () => void }): Promise<void> {
    const { vm } = this.bare;
    if (this.runs) await vm.stop();
    steps.stopped();
    this.restore(vm.tracker.collect());
    let at = 0;
    capture.runs.forEach((start, end) => {
      capture.pages.copy(this.shadow, start, at, at + end - start);
      at += end - start;
    });
    this.restore(capture.runs);
    capture.release();
    await vm.load(capture.deviceState);
    this.restore(vm.tracker.collect());
    steps.starting();
    await vm.resume();
    this.runs = true;
  }

  private restore(runs: PageRuns): void {
    runs.forEach((start, end) => void this.shadow.copy(this.bare.vm.ram, start, start, end));
  }
}

const nothing = () => undefined;

describe('clocks under KVM', { skip: refusal }, () => {
  for (const machine of ['q35', 'pc', 'microvm'] as const) {
    test(`${machine}: no pause is lost on any clock of the guest, and none goes back`, async (context) => {
      const bare = await startGuest(context, { machine });
      await bare.ready();
      const before = await sampleClocks(bare);
      const { kept = 0, pitKept = 0 } = bare.vm.clockCounts ?? {};
      let pausesMs = 0;
      // More of the pause than any clock may be off.
      for (let count = 0; count < 60 || pausesMs < 300; count++) {
        const capture = await bare.vm.capture({ onStopped: nothing });
        capture.release();
        pausesMs += capture.phases.pauseMs;
        assert.equal(bare.vm.clockCounts?.kept, kept + count + 1, 'kvmclock was put back');
        // A microvm under KVM has no PIT.
        if (machine !== 'microvm')
          assert.equal(bare.vm.clockCounts?.pitKept, pitKept + count + 1, 'the PIT began anew');
      }
      await bare.vm.makeTemplate();
      const keptBefore = bare.vm.clockCounts?.kept ?? 0;
      const now = await sampleClocks(bare);
      assert.deepEqual(
        gains(before, now),
        Object.fromEntries(Object.keys(gains(before, now)).map((name) => [name, 0])),
      );
      const wanted: readonly ClockName[] = machine === 'microvm' ? ['tsc', 'kvmclock', 'lapic'] : clockNames;
      for (const name of wanted) assert.ok(now.clocks[name] !== undefined, `${machine} has no ${name}`);
      // A stop of another kind loses time on QEMU's own timers, but leaves TSC and kvmclock one time.
      await bare.vm.stop();
      await bare.vm.resume();
      assert.equal(bare.vm.clockCounts?.kept, keptBefore + 1);
      const { tsc, kvmclock } = gains(before, await sampleClocks(bare));
      assert.deepEqual({ tsc, kvmclock }, { tsc: 0, kvmclock: 0 });
      assert.deepEqual(stepsBack(bare.control), {});
    });
  }

  // A microvm boots without firmware, which this KVM emulates.
  for (const [machine, vcpus, rounds] of [
    ['q35', 1, 6],
    ['microvm', 2, 3],
    ['microvm', 4, 2],
  ] as const)
    test(`across loads every clock of the secondary is that of the primary, and none goes back (${vcpus})`, async (context) => {
      const primary = await startGuest(context, { machine, vcpus });
      await primary.ready();
      const vmstateTemplate = await primary.vm.makeTemplate();
      const secondary = await startGuest(context, { machine, vcpus, start: { paused: true, vmstateTemplate } });
      const receiver = new Receiver(secondary);
      for (let round = 1; round <= rounds; round++) {
        const capture = await primary.vm.capture({ onStopped: nothing });
        assert.ok(capture.clocksOf !== undefined);
        assert.equal(secondary.vm.startClocksFrom(capture.clocksOf), true);
        await receiver.apply(capture, { stopped: nothing, starting: nothing });
        const counts = secondary.vm.clockCounts;
        assert.equal(counts?.started, round, 'kvmclock was not started from its moment');
        // The reset before a load may write an older one.
        assert.ok((counts?.tscMoved ?? 0) >= round * vcpus, 'a TSC was not started from its moment');
        assert.equal(counts?.timerMoved, round, 'the timer of the local APIC was not started from its moment');
        // One host, one guest: what the one shows must follow from what the other did. KVM's PIT begins its period
        // anew.
        const { pit: _, ...found } = gains(await sampleClocks(primary), await sampleClocks(secondary));
        const onlyPc = machine === 'microvm' ? {} : { pmTimer: 0, hpet: 0 };
        assert.deepEqual(found, { tsc: 0, kvmclock: 0, ...onlyPc, lapic: 0 }, `round ${round}`);
        assert.deepEqual(stepsBack(secondary.control), {});
        assert.equal(secondary.control.number('tsc_apart'), 0, 'the TSC of one vCPU is behind that of another');
      }
    });

  test('a machine whose state is of no known moment goes on from the state, and says that nothing was aligned', async (context) => {
    const primary = await startGuest(context, { machine: 'microvm' });
    await primary.ready();
    const vmstateTemplate = await primary.vm.makeTemplate();
    const secondary = await startGuest(context, { machine: 'microvm', start: { paused: true, vmstateTemplate } });
    const capture = await primary.vm.capture({ onStopped: nothing });
    secondary.vm.startClocksFrom(undefined);
    await new Receiver(secondary).apply(capture, { stopped: nothing, starting: nothing });
    assert.equal(secondary.vm.clockCounts?.started, 0);
    assert.equal(secondary.vm.clockCounts?.tscMoved, 0);
    // It travelled all the same, and goes on from where it was.
    assert.equal(secondary.vm.clockCounts?.timerMoved, 1);
    await secondary.clocks();
  });
});

test('under TCG an older state that is loaded leaves all clocks one time, however far the machine had run', async (context) => {
  const primary = await startGuest(context, { accel: 'tcg' });
  await primary.ready();
  const vmstateTemplate = await primary.vm.makeTemplate();
  const secondary = await startGuest(context, { accel: 'tcg', start: { paused: true, vmstateTemplate } });
  const receiver = new Receiver(secondary);
  const clock = new GuestClock();
  const now = () => performance.now();
  let first: ClockSample | undefined;
  for (let round = 0; round < 4; round++) {
    const capture = await primary.vm.capture({ onStopped: nothing });
    const { deviceState } = capture;
    assert.equal(capture.clocksOf, undefined);
    assert.equal(secondary.vm.startClocksFrom(now()), false);
    const ticksPerMs = tscTicksPerMs(deviceState) ?? 0;
    const clockMs = () => Number(guestTime(deviceState)?.clockNs) / 1e6;
    if (round > 0) {
      // The secondary runs on while the primary's state is not yet applied: it has shown a later time than that.
      await secondary.until('it has shown a later time', () => secondary.control.ms('tsc') > clockMs() + 50);
    }
    await receiver.apply(capture, {
      stopped: () => {
        clock.stopped(now());
        assert.ok(alignClock(deviceState, clock.plan(clockMs(), 0).lagMs, ticksPerMs));
      },
      starting: () => clock.starting(clockMs(), now()),
    });
    const sample = await sampleClocks(secondary);
    first ??= sample;
    const apart = ({ clocks }: ClockSample) => (clocks.tsc ?? 0) - (clocks.hpet ?? 0);
    // The guest read both of them between the bounds of the sample.
    const bound = sample.toMs - sample.fromMs + first.toMs - first.fromMs + toleranceMs(first, sample);
    const wentApart = apart(sample) - apart(first);
    assert.ok(
      Math.abs(wentApart) < bound,
      `round ${round}: TSC and HPET went apart by ${wentApart} ms, bound ${bound}`,
    );
  }
});
