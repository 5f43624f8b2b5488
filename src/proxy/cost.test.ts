// What the proxy may cost in memory, measured on the heap as `colo bench proxy` does.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { heapBytesOfMatching, measureMemory } from '../../bench/proxy.ts';

// The compiler at once and in this thread: on a starved host another one may come to it only after any number of
// rounds.
setFlagsFromString('--no-concurrent-recompilation');

test('100,000 connections held cost less than 200 MB', () => {
  const { connections, megabytes, megabytesMax } = measureMemory();
  assert.equal(connections, 100_000);
  assert.ok(megabytes < megabytesMax, `${megabytes} MB`);
});

test('equal traffic allocates nothing per frame, once the compiler has seen it', () => {
  // One number handed on as an object for each frame of one side would be 8 bytes a frame in every round. What V8 does
  // beside (3 to 7 bytes a frame here, in windows so short that a collection in them is rare) differs from round to
  // round.
  const found = heapBytesOfMatching(5, 9);
  assert.equal(found.length, 2);
  for (const { traffic, bytesPerFrame } of found)
    assert.ok(bytesPerFrame < 8, `${traffic}: ${bytesPerFrame.toFixed(1)} bytes per frame`);
});
