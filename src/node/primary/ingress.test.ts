// Ingress around a capture: nothing overtakes, what finds no room is counted, and the last moments can be repeated.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ingressHeldFramesMax, replayWindowMs } from '../limits.ts';
import { Ingress } from './ingress.ts';

function ingress(): { ingress: Ingress; got: number[] } {
  const got: number[] = [];
  return { ingress: new Ingress((frame) => void got.push(frame[0] ?? -1)), got };
}

const frame = (value: number): Uint8Array => Uint8Array.of(value & 0xff);

test('frames that come while a capture begins wait, and leave in order before later ones', () => {
  const { ingress: under, got } = ingress();
  under.take(frame(1), 0, true);
  under.hold();
  const reused = frame(2);
  under.take(reused, 1, true);
  reused[0] = 99;
  under.take(frame(3), 1, true);
  assert.deepEqual(got, [1]);
  under.release(2, true);
  under.take(frame(4), 3, true);
  assert.deepEqual(got, [1, 2, 3, 4]);
});

test('more than may wait is dropped and counted', () => {
  const { ingress: under, got } = ingress();
  under.hold();
  for (let index = 0; index < ingressHeldFramesMax + 3; index += 1) under.take(frame(index), 0, true);
  under.release(0, true);
  assert.equal(got.length, ingressHeldFramesMax);
  assert.equal(under.dropped, 3);
});

test('the last moments are those delivered to a pair within the window', () => {
  const { ingress: under } = ingress();
  under.take(frame(1), 0, false);
  under.take(frame(2), 0, true);
  under.take(frame(3), 5, true);
  under.take(frame(4), 5 + replayWindowMs, true);
  assert.deepEqual(
    [...under.lastMoments(5 + replayWindowMs)].map((each) => each[0]),
    [3, 4],
  );
  assert.deepEqual([...under.lastMoments(100)], []);
});
