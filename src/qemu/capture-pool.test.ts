// The memory of captures is used again, grows by need, and ends at its limits.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CapturePool } from './capture-pool.ts';
import { capturePagesBytesFirst, capturePagesBytesMax } from './limits.ts';

test('a buffer that was reserved is taken as it is, and comes back for the next capture', async () => {
  const pool = new CapturePool();
  await pool.reserve(1000);
  const first = pool.take(1000);
  assert.equal(first.length, capturePagesBytesFirst);
  first.fill(1);
  pool.give(first);
  assert.equal(pool.take(2000), first);
});

test('it grows by need and keeps the larger buffer', async () => {
  const pool = new CapturePool();
  await pool.reserve(capturePagesBytesFirst + 1);
  const large = pool.take(capturePagesBytesFirst + 1);
  assert.equal(large.length, 2 * capturePagesBytesFirst);
  const small = pool.take(10);
  pool.give(large);
  pool.give(small);
  assert.equal(pool.take(10), large);
});

test('at its limits it refuses, and works on afterwards', async () => {
  const pool = new CapturePool();
  await pool.reserve(capturePagesBytesMax + 1);
  assert.throws(() => pool.take(capturePagesBytesMax + 1), { code: 'COLO_E_CHECKPOINT' });
  const first = pool.take(1);
  pool.take(1);
  assert.throws(() => pool.take(1), { code: 'COLO_E_CHECKPOINT' });
  pool.give(first);
  assert.equal(pool.take(1), first);
});
