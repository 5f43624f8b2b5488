// A stall of the event loop is seen, counted, and named after what held it up.

import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { systemClock } from './clock.ts';
import { stallMs } from './limits.ts';
import { activities, causeOf, during, LoopWatch, type Stall } from './loop-watch.ts';

function busy(ms: number): void {
  for (const until = performance.now() + ms; performance.now() < until; );
}

/** The first stall of at least so long that is told. */
function stallOf(context: TestContext, ms: number, work: () => void): Promise<{ stall: Stall; watch: LoopWatch }> {
  return new Promise((resolve) => {
    const watch = new LoopWatch(systemClock, (stall) => {
      if (stall.ms >= ms) resolve({ stall, watch });
    });
    context.after(() => watch.close());
    setImmediate(work);
  });
}

test('a handler that holds up the loop is named, and what it calls under another name is named instead', async (context) => {
  const { stall, watch } = await stallOf(context, 300, () =>
    during('bulk', () => {
      busy(20);
      during('apply', () => busy(3 * stallMs + 50));
    }),
  );
  assert.match(stall.cause, /^apply/);
  const { stalls, longest, newest } = watch.status;
  assert.ok(stalls >= 1 && newest.length >= 1);
  assert.ok((longest?.ms ?? 0) >= stall.ms);
});

test('a process that did not run is told from one that was busy', async (context) => {
  const sleep = () => void Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 3 * stallMs + 50);
  const { stall } = await stallOf(context, 300, sleep);
  assert.match(stall.cause, /hardly ran/);
});

test('many short turns of one handler are its stall, half of it spent in collecting garbage is that, and the rest is other', () => {
  const spentMs = new Float64Array(activities.length);
  assert.equal(causeOf({ ms: 200, spentMs, collectedMs: 0, ranMs: 200 }), 'other');
  assert.equal(causeOf({ ms: 200, spentMs, collectedMs: 120, ranMs: 200 }), 'collecting garbage');
  spentMs[activities.indexOf('guest frame')] = 130;
  spentMs[activities.indexOf('beat')] = 10;
  assert.equal(causeOf({ ms: 200, spentMs, collectedMs: 0, ranMs: 200 }), 'guest frame');
  assert.match(causeOf({ ms: 200, spentMs, collectedMs: 0, ranMs: 20 }), /^guest frame, and hardly ran/);
});

test('what throws is left in order', () => {
  assert.throws(() =>
    during('tick', () => {
      throw new Error('it');
    }),
  );
  assert.equal(
    during('tick', () => 7),
    7,
  );
});
