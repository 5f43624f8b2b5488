// The memory of captures is used again, grows by need, and ends at its limits.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CapturePool } from './capture-pool.ts';
import { discardContents, hugeBuffer } from './libc.ts';
import { capturePagesBytesFirst, capturePagesBytesMax, captureShrinkAfter } from './limits.ts';

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

test('what one large checkpoint needed is given back when many smaller ones followed, and not before', async () => {
  const pool = new CapturePool();
  const sizeOf = async (bytes: number) => {
    await pool.reserve(bytes);
    const buffer = pool.take(bytes);
    pool.give(buffer);
    return buffer.length;
  };
  assert.equal(await sizeOf(2 * capturePagesBytesFirst), 2 * capturePagesBytesFirst);
  const sizes: number[] = [];
  for (let count = 0; count < 2 * captureShrinkAfter; count++) sizes.push(await sizeOf(1000));
  const shrunkAfter = sizes.indexOf(capturePagesBytesFirst);
  assert.ok(shrunkAfter >= captureShrinkAfter, `${shrunkAfter} captures`);
  assert.deepEqual(new Set(sizes.slice(shrunkAfter)), new Set([capturePagesBytesFirst]));
  // One that is needed now and then stays.
  assert.equal(await sizeOf(2 * capturePagesBytesFirst), 2 * capturePagesBytesFirst);
  for (let count = 1; count < 4 * captureShrinkAfter; count++)
    assert.equal(
      await sizeOf(count % captureShrinkAfter === 0 ? 2 * capturePagesBytesFirst : 1),
      2 * capturePagesBytesFirst,
    );
});

test('memory of a buffer that is not kept goes back to the kernel at once; other memory is left alone', async () => {
  const bytes = 2 * 2 ** 20;
  const huge = await hugeBuffer(bytes);
  huge.fill(7);
  assert.ok(discardContents(huge.subarray(4096)));
  // Private memory that the kernel took back reads as zeros.
  assert.ok(huge.equals(Buffer.alloc(bytes)));
  const ordinary = Buffer.alloc(bytes, 7);
  assert.ok(!discardContents(ordinary));
  assert.ok(ordinary.every((byte) => byte === 7));
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
