// A few thousand mutated frames; test/soak/proxy-fuzz.test.ts puts a million through.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fuzzProxy } from './testbed/fuzz.ts';

test('mutated frames of every kind: nothing throws, nothing outgrows its bound, and some of them still match', () => {
  for (const seed of [1, 2, 3]) assert.ok(fuzzProxy(seed, 4000) > 100);
});
