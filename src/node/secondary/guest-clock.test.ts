// The clock of a secondary's machine: as far as the primary's, and never a TSC alone.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { firstRestartGuessMs, restartGuessesKept, restartWaitMsMax } from '../limits.ts';
import { GuestClock, RestartGuess } from './guest-clock.ts';

test('a machine that has shown no later time is moved by its lag, and by nothing less than 0', () => {
  const clock = new GuestClock();
  assert.deepEqual(clock.plan(5_000, 20), { lagMs: 20, aheadMs: 0 });
  assert.deepEqual(clock.plan(5_000, -3), { lagMs: 0, aheadMs: 0 });
});

test('a primary that stood for longer than the apply takes costs no TSC that is ahead of the other clocks', () => {
  const clock = new GuestClock();
  clock.starting(5_000, 100);
  // Runs for 1,000 ms; the primary's clock stood for 247 of them, and the apply takes 35.
  clock.stopped(1_100);
  assert.deepEqual(clock.plan(5_753, 35), { lagMs: 247, aheadMs: 212 });
});

/** QEMU's own counters: the virtual clock is what is loaded, the ticks never fall below what they were. */
class Qemu {
  clockMs = 0;
  ticksMs = 0;
  runsSince: number | undefined;

  resume(now: number): void {
    this.runsSince = now;
  }

  stop(now: number): void {
    const ranMs = now - (this.runsSince ?? now);
    this.clockMs += ranMs;
    this.ticksMs += ranMs;
  }

  load(clockMs: number): void {
    this.clockMs = clockMs;
    this.ticksMs = Math.max(this.ticksMs, clockMs);
  }
}

const epochs = fc.array(
  fc.record({
    epochMs: fc.nat(500),
    standsMs: fc.nat(300),
    travelMs: fc.nat(50),
    applyMs: fc.integer({ min: 1, max: 60 }),
    guessErrorMs: fc.integer({ min: -20, max: 20 }),
    answerMs: fc.nat(3),
  }),
  { minLength: 1, maxLength: 30 },
);

test('whatever pauses, loads and wrong guesses: all clocks of the machine are one time, and never behind what was loaded', () => {
  fc.assert(
    fc.property(epochs, (rounds) => {
      const clock = new GuestClock();
      const qemu = new Qemu();
      let now = 0;
      let primaryMs = 0;
      for (const { epochMs, standsMs, travelMs, applyMs, guessErrorMs, answerMs } of rounds) {
        now += epochMs;
        primaryMs += epochMs;
        const captured = primaryMs;
        now += travelMs;
        qemu.stop(now);
        clock.stopped(now + answerMs);
        const resumeAt = now + applyMs;
        const { lagMs } = clock.plan(captured, travelMs + applyMs + guessErrorMs - standsMs);
        qemu.load(captured + lagMs);
        assert.equal(qemu.ticksMs, qemu.clockMs, 'TSC and timers are apart');
        assert.ok(qemu.clockMs >= captured);
        now = resumeAt;
        clock.starting(qemu.clockMs, now - answerMs);
        qemu.resume(now);
        primaryMs += Math.max(0, travelMs + applyMs - standsMs);
      }
    }),
  );
});

test('an overshoot does not stay: ordinary checkpoints bring the clock back to the primary within few of them', () => {
  const clock = new GuestClock();
  const qemu = new Qemu();
  let now = 0;
  let primaryMs = 0;
  const ahead: number[] = [];
  for (let round = 0; round < 40; round++) {
    now += 100;
    primaryMs += 100;
    qemu.stop(now);
    clock.stopped(now);
    const { lagMs, aheadMs } = clock.plan(primaryMs, round === 3 ? 150 : 20);
    qemu.load(primaryMs + lagMs);
    now += 20;
    primaryMs += 20;
    clock.starting(qemu.clockMs, now);
    qemu.resume(now);
    ahead.push(aheadMs);
  }
  assert.ok(Math.max(...ahead) > 0);
  assert.equal(ahead.at(-1), 0);
});

test('a restart is planned for when most of the newest are ready, and who is ready before waits, within its bound', () => {
  const guess = new RestartGuess();
  assert.equal(guess.ms, firstRestartGuessMs);
  for (const readyMs of [900, ...Array.from({ length: restartGuessesKept / 4 }, () => [10, 14, 12, 40]).flat()])
    guess.took(readyMs, 1);
  // The 900 is forgotten; a quarter takes longer than planned.
  assert.equal(guess.ms, 15);
  assert.equal(guess.waitMs(guess.ms, 10), 4);
  assert.equal(guess.waitMs(guess.ms, 40), 0);
  assert.equal(guess.waitMs(500, 10), restartWaitMsMax);
});

test('what waits for its moment is not taken for what it takes: plans follow a machine that becomes faster', () => {
  const guess = new RestartGuess();
  let planned = 0;
  for (let round = 0; round < 2 * restartGuessesKept; round++) {
    const readyMs = round < restartGuessesKept ? 25 : 8;
    planned = guess.ms;
    guess.took(readyMs, 1);
  }
  assert.equal(planned, 9);
});
