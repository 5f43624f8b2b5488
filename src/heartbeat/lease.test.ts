// The lease and the grant: whatever is stopped, delayed or woken, the primary's right to speak is over before the
// secondary may act on silence.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Fifo } from '../base/fifo.ts';
import { seededRandom } from '../base/random.ts';
import { Grant, Lease } from './lease.ts';
import { askPeriodMs, leaseMs, stallPeriods, takeoverMarginMs } from './limits.ts';
import { beatTypes, encodeBeat } from './message.ts';
import { HeartbeatPrimary } from './primary.ts';
import { HeartbeatSecondary } from './secondary.ts';
import { Tolerance } from './tolerance.ts';

test('a lease is valid from the first echo until leaseMs after its beat was sent', () => {
  const lease = new Lease({ leaseMs: 400 });
  assert.equal(lease.valid(0), false);
  assert.equal(lease.echoed(1000, 1020), true);
  assert.equal(lease.valid(1399), true);
  assert.equal(lease.valid(1400), false);
});

test('an old echo extends nothing, one from the future is refused', () => {
  const lease = new Lease({ leaseMs: 400 });
  lease.echoed(1000, 1020);
  lease.echoed(900, 1030);
  assert.equal(lease.expiresAt, 1400);
  assert.equal(lease.echoed(2000, 1040), false);
  assert.equal(lease.echoed(Number.NaN, 1040), false);
  assert.equal(lease.expiresAt, 1400);
});

test('a stopped primary that wakes finds its lease expired although echoes wait in its socket', () => {
  const lease = new Lease({ leaseMs: 400 });
  lease.echoed(1000, 1001);
  for (let sentAt = 1050; sentAt <= 1200; sentAt += 50) lease.echoed(sentAt, 9000);
  assert.equal(lease.valid(9000), false);
});

test('a closed link revokes the lease and allows the takeover at once', () => {
  const lease = new Lease({ leaseMs: 400 });
  lease.echoed(1000, 1001);
  lease.revoke();
  assert.equal(lease.valid(1002), false);
  const grant = new Grant({ leaseMs: 400, marginMs: 50 });
  grant.echoSent(1001);
  assert.equal(grant.takeoverAllowed(1450), false);
  assert.equal(grant.takeoverAllowed(1451), true);
  grant.closed();
  assert.equal(grant.takeoverAllowed(1002), true);
});

test('a link that this side gave up leaves the primary what it was lent', () => {
  const secondary = new HeartbeatSecondary({ send: () => undefined }, { now: 0, tolerance: new Tolerance(), term: 1 });
  assert.ok(secondary.grant.waitMs(5) <= 0, 'nothing was lent yet');
  assert.ok(secondary.receive(beatTypes.beat, encodeBeat({ sequence: 1, term: 1, sentAt: 0 }), 10));
  secondary.withhold();
  assert.equal(secondary.grant.waitMs(20), 440);
  assert.equal(secondary.grant.waitMs(460), 0);
  secondary.closed();
  assert.equal(secondary.grant.waitMs(20), 0);
});

test('a beat of another term than the one that was agreed on is none, and lends nothing', () => {
  const send = () => assert.fail('nothing is echoed');
  const secondary = new HeartbeatSecondary({ send }, { now: 0, tolerance: new Tolerance(), term: 2 });
  for (const term of [0, 1, 3])
    assert.equal(secondary.receive(beatTypes.beat, encodeBeat({ sequence: 1, term, sentAt: 0 }), 10), false);
  assert.ok(secondary.grant.waitMs(10) <= 0);
});

test('a secondary that asks the arbiter echoes no more', () => {
  let echoes = 0;
  const secondary = new HeartbeatSecondary(
    { send: () => void (echoes += 1) },
    { now: 0, tolerance: new Tolerance(), term: 1 },
  );
  const beat = encodeBeat({ sequence: 1, term: 1, sentAt: 0 });
  assert.ok(secondary.receive(beatTypes.beat, beat, 10));
  secondary.withhold();
  assert.ok(secondary.receive(beatTypes.beat, beat, 460));
  assert.equal(echoes, 1);
  assert.equal(secondary.grant.takeoverAllowed(460), true);
});

interface World {
  leaseSeenAfterTakeover: boolean;
  tookOver: boolean;
}

// Both cores, two clocks with other starting points and rates, a network with delays but in order (a stream), and stops
// of either side at any time: a stopped side does nothing, its messages wait.
function run(seed: number, rates: { primary: number; secondary: number }): World {
  const random = seededRandom(seed);
  const toSecondary = new Fifo<{ due: number; type: number; payload: Uint8Array }>();
  const toPrimary = new Fifo<{ due: number; type: number; payload: Uint8Array }>();
  let real = 0;
  const primaryNow = (): number => 5_000 + real * rates.primary;
  const secondaryNow = (): number => 90_000 + real * rates.secondary;
  const delayMs = random() < 0.5 ? 2 : 150;
  const post = (queue: typeof toPrimary) => ({
    send: (type: number, payload: Uint8Array) => queue.push({ due: real + random() * delayMs, type, payload }),
  });
  const tolerance = new Tolerance();
  const primary = new HeartbeatPrimary(post(toSecondary), { term: 1, now: primaryNow(), tolerance: new Tolerance() });
  const secondary = new HeartbeatSecondary(post(toPrimary), { now: secondaryNow(), tolerance, term: 1 });
  const awakeAt = { primary: 0, secondary: 0 };
  const world: World = { leaseSeenAfterTakeover: false, tookOver: false };
  for (; real < 6_000; real += askPeriodMs / 2) {
    for (const side of ['primary', 'secondary'] as const) {
      if (random() < 0.002) awakeAt[side] = real + random() * 1_500;
    }
    if (real >= awakeAt.primary) {
      for (let at = toPrimary.peek(); at !== undefined && at.due <= real; at = toPrimary.peek()) {
        toPrimary.shift();
        assert.ok(primary.receive(at.type, at.payload, primaryNow()));
      }
      primary.tick(primaryNow());
      if (world.tookOver && primary.lease.valid(primaryNow())) world.leaseSeenAfterTakeover = true;
    }
    // A secondary that has taken over echoes no more.
    if (real < awakeAt.secondary || world.tookOver) continue;
    if (secondary.mayTakeOver(secondaryNow())) {
      world.tookOver = true;
      if (primary.lease.valid(primaryNow())) world.leaseSeenAfterTakeover = true;
      continue;
    }
    for (let at = toSecondary.peek(); at !== undefined && at.due <= real; at = toSecondary.peek()) {
      toSecondary.shift();
      assert.ok(secondary.receive(at.type, at.payload, secondaryNow()));
    }
  }
  return world;
}

test('the lease is never valid once the secondary may take over, whatever stops and wakes', () => {
  let takeovers = 0;
  fc.assert(
    fc.property(fc.integer(), (seed) => {
      const world = run(seed, { primary: 1, secondary: 1 });
      if (world.tookOver) takeovers += 1;
      assert.equal(world.leaseSeenAfterTakeover, false);
    }),
    { numRuns: 150 },
  );
  assert.ok(takeovers > 20, `only ${takeovers} runs took over: the test tests too little`);
});

test('the margin covers clocks whose rates differ by far more than real ones do', () => {
  assert.ok(takeoverMarginMs / leaseMs > 0.1);
  fc.assert(
    fc.property(fc.integer(), (seed) => {
      assert.equal(run(seed, { primary: 0.96, secondary: 1.04 }).leaseSeenAfterTakeover, false);
    }),
    { numRuns: 100 },
  );
});

test('an undisturbed pair keeps its lease and suspects nobody', () => {
  let now = 0;
  const primary: HeartbeatPrimary = new HeartbeatPrimary(
    { send: (type, payload) => assert.ok(secondary.receive(type, payload, now)) },
    { term: 1, now, tolerance: new Tolerance() },
  );
  const secondary = new HeartbeatSecondary(
    { send: (type, payload) => assert.ok(primary.receive(type, payload, now)) },
    { now, tolerance: new Tolerance(), term: 1 },
  );
  for (; now < 5_000; now += askPeriodMs) {
    primary.tick(now);
    assert.equal(primary.lease.valid(now), true);
    assert.equal(primary.detector.suspects(now), false);
    assert.equal(secondary.mayTakeOver(now), false);
  }
  const silentFrom = now;
  while (!secondary.mayTakeOver(now)) now += askPeriodMs;
  assert.ok(now - silentFrom <= leaseMs + takeoverMarginMs + askPeriodMs);
  assert.ok(stallPeriods >= 1);
});
