// The detector: suspects silence, forgives its own sleep, bears what it has seen lately, never anything else.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Detector } from './detector.ts';
import { Tolerance } from './tolerance.ts';

const detectorOf = (tolerance = new Tolerance()) => new Detector({ periodMs: 50, tolerance });

/** Asks every 10 ms over [from, to] and returns when the first suspicion came. */
function askUntilSuspected(detector: Detector, from: number, to: number): number | undefined {
  for (let now = from; now <= to; now += 10) if (detector.suspects(now)) return now;
  return undefined;
}

test('a peer that beats is never suspected', () => {
  const detector = detectorOf();
  for (let now = 0; now < 10_000; now += 10) {
    if (now % 50 === 0) detector.beat(now);
    assert.equal(detector.suspects(now), false);
  }
});

test('silence is suspected exactly at the timeout', () => {
  const detector = detectorOf();
  detector.beat(1000);
  assert.equal(askUntilSuspected(detector, 1000, 2000), 1400);
});

test('nobody is suspected before the first beat', () => {
  assert.equal(askUntilSuspected(detectorOf(), 0, 2000), undefined);
});

test('a beat ends the suspicion', () => {
  const detector = detectorOf();
  detector.beat(0);
  assert.equal(askUntilSuspected(detector, 0, 500), 400);
  detector.beat(510);
  assert.equal(detector.suspects(510), false);
});

test('a process that slept itself does not suspect the peer on waking, but does later', () => {
  const detector = detectorOf();
  detector.beat(0);
  assert.equal(askUntilSuspected(detector, 0, 100), undefined);
  assert.equal(detector.suspects(60_000), false);
  // 100 ms of silence were seen before the sleep, 300 more are needed.
  assert.equal(askUntilSuspected(detector, 60_010, 62_000), 60_300);
});

test('after a late answer the peer is given twice as long, and no less a minute later than before', () => {
  const detector = detectorOf();
  for (let now = 0; now <= 1000; now += 50) detector.beat(now);
  assert.equal(askUntilSuspected(detector, 1000, 1350), undefined);
  detector.beat(1350);
  assert.equal(askUntilSuspected(detector, 1350, 3000), 1350 + 700);
  for (let now = 2100; now <= 70_000; now += 50) detector.beat(now);
  assert.equal(askUntilSuspected(detector, 70_000, 72_000), 70_400);
});

test('the time until the first beat is no gap', () => {
  const tolerance = new Tolerance();
  const detector = detectorOf(tolerance);
  detector.begin(0);
  detector.beat(900);
  assert.equal(tolerance.timeoutMs(900), 400);
});

test('a process that was starved itself bears more of its peer', () => {
  const tolerance = new Tolerance();
  const detector = detectorOf(tolerance);
  detector.beat(0);
  assert.equal(detector.suspects(10), false);
  assert.equal(detector.suspects(310), false);
  assert.equal(tolerance.timeoutMs(310), 600);
});
