// A million mutated frames through both proxies.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fuzzProxy } from '../../src/proxy/testbed/fuzz.ts';

const seeds = 20;
const framesPerSeed = 50_000;

test('a million mutated frames: nothing throws, and nothing outgrows its bound', () => {
  const before = process.memoryUsage().rss;
  for (let seed = 1; seed <= seeds; seed += 1) assert.ok(fuzzProxy(1000 + seed, framesPerSeed) > 1000);
  assert.ok(process.memoryUsage().rss - before < 1 << 30, 'memory grows with the number of frames');
});
