// Copying what changed while the guest goes on writing, in every order: the replica is the disk in the end.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ChangedCopy, without } from './changed-copy.ts';

const bytes = 32;

interface Step {
  kind: 'write' | 'turn';
  start: number;
  length: number;
  /** Turns between a write's arrival in the image and its way past the copy, at most. */
  lag: number;
}

const steps = fc.array(
  fc.record({
    kind: fc.constantFrom('write' as const, 'turn' as const),
    start: fc.integer({ min: 0, max: bytes - 1 }),
    length: fc.integer({ min: 1, max: 8 }),
    lag: fc.integer({ min: 0, max: 3 }),
  }),
  { maxLength: 60 },
);

const turn = () => new Promise<void>((resolve) => void setImmediate(resolve));

/**
 * A guest writes to `image`, its writes pass to `replica` behind it, and a copy that reads byte by byte runs beside.
 */
async function copyWhile(list: readonly Step[]): Promise<{ image: Buffer; replica: Buffer }> {
  const image = Buffer.alloc(bytes, 1);
  const replica = Buffer.alloc(bytes, 0);
  const copy = new ChangedCopy({
    read: async (start, length) => {
      const data = Buffer.alloc(length);
      for (let at = 0; at < length; at += 1) {
        data[at] = image[start + at] ?? 0;
        if (at % 3 === 0) await turn();
      }
      return data;
    },
    send: (start, length, data) => {
      assert.equal(data?.length, length);
      data?.copy(replica, start);
      return turn();
    },
  });
  let done = false;
  const copied = copy.copy({ start: 0, end: bytes }).then(() => {
    done = true;
  });
  // When two writes go to one place, the second begins when the first is done, as in QEMU.
  let last: Promise<void> = Promise.resolve();
  const write = async ({ start, length, lag }: Step, value: number) => {
    const end = Math.min(bytes, start + length);
    image.fill(value, start, end);
    for (let index = 0; index < lag; index += 1) await turn();
    copy.wrote(start, end - start);
    replica.fill(value, start, end);
  };
  for (const [index, step] of list.entries()) {
    await turn();
    if (step.kind === 'write') last = last.then(() => write(step, index + 2));
  }
  await last;
  await copied;
  assert.ok(done);
  return { image, replica };
}

test('whatever the guest writes while changed blocks are copied, the replica is the disk in the end', async () => {
  await fc.assert(
    fc.asyncProperty(steps, async (list) => {
      const { image, replica } = await copyWhile(list);
      assert.deepEqual(replica, image);
    }),
    { numRuns: 200 },
  );
});

test('what is left without holes is exactly what no hole covers', () => {
  const range = fc.tuple(fc.nat(40), fc.nat(20)).map(([start, length]) => ({ start, end: start + length + 1 }));
  fc.assert(
    fc.property(range, fc.array(range, { maxLength: 6 }), (whole, holes) => {
      const left = without(whole, holes);
      for (let at = 0; at < 64; at += 1) {
        const isIn = (one: { start: number; end: number }) => at >= one.start && at < one.end;
        assert.equal(left.filter(isIn).length, isIn(whole) && !holes.some(isIn) ? 1 : 0);
      }
    }),
  );
});
