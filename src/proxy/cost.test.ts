// What the proxy may cost in memory, measured on the heap as `colo bench proxy` does.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { heapBytesOfMatching, measureMemory } from '../../bench/proxy.ts';

test('100,000 connections held cost less than 200 MB', () => {
  const { connections, megabytes, megabytesMax } = measureMemory();
  assert.equal(connections, 100_000);
  assert.ok(megabytes < megabytesMax, `${megabytes} MB`);
});

test('equal traffic allocates nothing per frame, once the compiler has seen it', () => {
  // One number handed on as an object would be 8 bytes per frame, in every round. What V8 does beside, and how long its
  // compiler takes, is the host's matter: on a starved one few rounds are below 3.
  const found: number[] = [];
  while (found.length < 40 && (found.at(-1) ?? 8) >= 4) found.push(heapBytesOfMatching());
  assert.ok((found.at(-1) ?? 8) < 4, `bytes per frame: ${found.map((each) => each.toFixed(1)).join(', ')}`);
});
