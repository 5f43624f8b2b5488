// The detector: suspects silence, forgives its own sleep, never anything else.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Detector } from './detector.ts';

const options = { periodMs: 50, timeoutMs: 400 };

/** Asks every 10 ms over [from, to] and returns when the first suspicion came. */
function askUntilSuspected(detector: Detector, from: number, to: number): number | undefined {
  for (let now = from; now <= to; now += 10) if (detector.suspects(now)) return now;
  return undefined;
}

test('a peer that beats is never suspected', () => {
  const detector = new Detector(options);
  for (let now = 0; now < 10_000; now += 10) {
    if (now % 50 === 0) detector.beat(now);
    assert.equal(detector.suspects(now), false);
  }
});

test('silence is suspected exactly at the timeout', () => {
  const detector = new Detector(options);
  detector.beat(1000);
  assert.equal(askUntilSuspected(detector, 1000, 2000), 1400);
});

test('nobody is suspected before the first beat', () => {
  assert.equal(askUntilSuspected(new Detector(options), 0, 2000), undefined);
});

test('a beat ends the suspicion', () => {
  const detector = new Detector(options);
  detector.beat(0);
  assert.equal(askUntilSuspected(detector, 0, 500), 400);
  detector.beat(510);
  assert.equal(detector.suspects(510), false);
});

test('a process that slept itself does not suspect the peer on waking, but does later', () => {
  const detector = new Detector(options);
  detector.beat(0);
  assert.equal(askUntilSuspected(detector, 0, 100), undefined);
  assert.equal(detector.suspects(60_000), false);
  // 100 ms of silence were seen before the sleep, 300 more are needed.
  assert.equal(askUntilSuspected(detector, 60_010, 62_000), 60_300);
});
