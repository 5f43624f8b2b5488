// Quantiles are among the values, and 0 of nothing.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { median, quantile } from './quantile.ts';

test('a quantile is the nearest rank: of a hundred values the 50th, the 99th and the last', () => {
  const hundred = Array.from({ length: 100 }, (_, at) => at + 1);
  assert.deepEqual(
    [0, 0.5, 0.99, 1].map((share) => quantile(hundred, share)),
    [1, 50, 99, 100],
  );
  assert.equal(quantile([7], 0.01), 7);
  assert.equal(quantile([1, 9], 0.5), 1);
  assert.equal(quantile([], 0.5), 0);
  assert.deepEqual([median([9, 100, 1]), median([9, 1]), median([])], [9, 1, 0]);
});
