// The newest bytes of overlapping writes, against a plain array of bytes.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ExtentMap, runs } from './extents.ts';

const diskBytes = 64;

const writes = fc.array(
  fc.record({
    start: fc.integer({ min: 0, max: diskBytes - 1 }),
    length: fc.integer({ min: 1, max: 20 }),
    zero: fc.boolean(),
  }),
  { maxLength: 30 },
);

test('whatever the writes, the extents are disjoint, ascending, and give the bytes of the newest write', () => {
  fc.assert(
    fc.property(writes, (list) => {
      const model = Buffer.alloc(diskBytes, 0xff);
      const file: number[] = [];
      const map = new ExtentMap();
      list.forEach(({ start, length, zero }, index) => {
        const end = Math.min(diskBytes, start + length);
        const data = Buffer.alloc(end - start, index + 1);
        model.fill(zero ? 0 : index + 1, start, end);
        map.add({ start, end, data: zero ? undefined : data, fileAt: zero ? undefined : file.length });
        file.push(...data);
      });
      const seen = Buffer.alloc(diskBytes, 0xff);
      let last = 0;
      for (const { start, end, data, fileAt } of map) {
        assert.ok(start >= last && end > start);
        last = end;
        for (let at = start; at < end; at += 1) {
          if (data !== undefined) assert.equal(data[at - start], file[(fileAt ?? 0) + at - start]);
          seen[at] = data?.[at - start] ?? 0;
        }
      }
      assert.deepEqual(seen, model);
    }),
  );
});

test('runs cover the extents once, and join only neighbours within the limits', () => {
  fc.assert(
    fc.property(writes, fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 5 }), (list, bytes, extents) => {
      const map = new ExtentMap();
      for (const { start, length, zero } of list)
        map.add({ start, end: start + length, data: undefined, fileAt: zero ? undefined : 0 });
      const covered: [number, number, boolean][] = [];
      for (const run of runs(map, { bytes, extents })) {
        if (run.kind === 'zeroes') {
          covered.push([run.start, run.end, true]);
          continue;
        }
        let at = run.start;
        for (const extent of run.extents) {
          assert.equal(extent.start, at);
          at = extent.end;
          covered.push([extent.start, extent.end, false]);
        }
        assert.ok(run.extents.length <= extents && (run.extents.length === 1 || at - run.start <= bytes));
      }
      assert.deepEqual(
        covered,
        [...map].map((each) => [each.start, each.end, each.fileAt === undefined]),
      );
    }),
  );
});
