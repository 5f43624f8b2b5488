// The loss of an arbiter is noticed while nobody needs it, and so is its return; what it says is not touched. That it
// can be read is no proof that it can be claimed at.

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
  let probes = 0;
  const state = { isDown: false, isFull: false };
  const fail = (isOver: boolean, why: string) => {
    if (isOver) throw new ColoError(errorCodes.arbiter, why);
  };
  const flaky: Arbiter = {
    read: async (vm) => {
      fail(state.isDown, 'nobody answers');
      return inner.read(vm);
    },
    claim: async (...claim) => {
      fail(state.isDown, 'nobody answers');
      fail(state.isFull, 'no space');
      return inner.claim(...claim);
    },
    probe: async (vm) => {
      probes += 1;
      fail(state.isDown, 'nobody answers');
      fail(state.isFull, 'no space');
      return inner.probe(vm);
    },
    close: () => inner.close(),
  };
  const clock = new TestClock();
  const told: (ArbiterProblem | undefined)[] = [];
  const watched = new WatchedArbiter(flaky, { vm: 'guest', clock, changed: (problem) => told.push(problem) });
  return { watched, clock, state, told, probes: () => probes };
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

test('one that can be read and takes no claim is lost before anybody claims, and its reads end no alarm', async () => {
  const { watched, clock, state, told } = stage();
  const alone = { owner: 'left', peer: null };
  await watched.claim('guest', 0, alone);
  state.isFull = true;
  await clock.turn();
  await clock.turn();
  const problem = { since: 2 * probeEveryMs, why: 'no space' };
  assert.deepEqual(watched.problem, problem);
  for (let time = 0; time < 5; time += 1) {
    assert.equal((await watched.read('guest'))?.term, 1);
    await assert.rejects(watched.claim('guest', 1, alone), /no space/);
  }
  assert.deepEqual(told, [problem], 'it does not flap');
  state.isFull = false;
  // One that was lost has written nothing.
  assert.equal((await watched.claim('guest', 0, { owner: 'right', peer: null })).won, false);
  assert.deepEqual(watched.problem, problem);
  assert.equal((await watched.claim('guest', 1, alone)).won, true);
  assert.deepEqual(told, [problem, undefined]);
});

test('an arbiter that took a claim is not probed besides, one that is closed is not asked again', async () => {
  const { watched, clock, probes } = stage();
  assert.equal(await watched.read('guest'), undefined);
  await clock.turn();
  assert.equal(probes(), 1);
  assert.ok((await watched.claim('guest', 0, { owner: 'left', peer: null })).won);
  await clock.turn();
  assert.equal(probes(), 1);
  await clock.turn();
  assert.equal(probes(), 2);
  await watched.close();
  await clock.turn();
  await clock.turn();
  assert.equal(probes(), 2);
});
