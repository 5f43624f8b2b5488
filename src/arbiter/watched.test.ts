// The loss of an arbiter is noticed while nobody needs it, and so is its return; what it says is not touched.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Clock } from '../base/clock.ts';
import { ColoError, errorCodes } from '../base/errors.ts';
import type { Arbiter } from './arbiter.ts';
import { probeEveryMs } from './limits.ts';
import { MemoryArbiter } from './memory.ts';
import { type ArbiterProblem, WatchedArbiter } from './watched.ts';

/** A clock that a test turns; what is due runs then. */
class TestClock implements Clock {
  time = 0;
  private readonly timers = new Set<() => void>();
  now(): number {
    return this.time;
  }
  after(): () => void {
    return assert.fail('nothing is to be done once');
  }
  every(periodMs: number, action: () => void): () => void {
    assert.equal(periodMs, probeEveryMs);
    this.timers.add(action);
    return () => void this.timers.delete(action);
  }
  /** One period passes. */
  async turn(): Promise<void> {
    this.time += probeEveryMs;
    for (const action of this.timers) action();
    await new Promise((resolve) => setImmediate(resolve));
  }
}

function stage() {
  const inner = new MemoryArbiter(new Map());
  let reads = 0;
  const state = { isDown: false };
  const flaky: Arbiter = {
    read: (vm) => {
      reads += 1;
      return state.isDown ? Promise.reject(new ColoError(errorCodes.arbiter, 'nobody answers')) : inner.read(vm);
    },
    claim: (...claim) => inner.claim(...claim),
    close: () => inner.close(),
  };
  const clock = new TestClock();
  const told: (ArbiterProblem | undefined)[] = [];
  const watched = new WatchedArbiter(flaky, { vm: 'guest', clock, changed: (problem) => told.push(problem) });
  return { watched, clock, state, told, reads: () => reads };
}

test('its loss is told once, with since when, and its return', async () => {
  const { watched, clock, state, told } = stage();
  await clock.turn();
  assert.equal(watched.problem, undefined);
  state.isDown = true;
  await clock.turn();
  await clock.turn();
  assert.deepEqual(watched.problem, { since: 2 * probeEveryMs, why: 'nobody answers' });
  await assert.rejects(watched.read('guest'), /nobody answers/);
  state.isDown = false;
  await clock.turn();
  await clock.turn();
  assert.equal(watched.problem, undefined);
  assert.deepEqual(told, [{ since: 2 * probeEveryMs, why: 'nobody answers' }, undefined]);
});

test('an arbiter that is asked anyway is not probed besides, one that is closed is not asked again', async () => {
  const { watched, clock, reads } = stage();
  assert.equal(await watched.read('guest'), undefined);
  await clock.turn();
  assert.equal(reads(), 1);
  await clock.turn();
  assert.equal(reads(), 2);
  assert.ok((await watched.claim('guest', 0, { owner: 'left', peer: null })).won);
  await watched.close();
  await clock.turn();
  await clock.turn();
  assert.equal(reads(), 2);
});
