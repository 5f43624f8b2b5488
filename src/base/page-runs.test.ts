// Sets of pages: whether one is within another.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { isWithin, PageRuns, pageSize } from './page-runs.ts';

function runsOf(pages: ReadonlySet<number>): PageRuns {
  const runs = new PageRuns();
  for (const page of [...pages].sort((one, other) => one - other)) runs.add(page * pageSize, (page + 1) * pageSize);
  return runs;
}

test('a set of pages is within another one when each of its pages is', () => {
  const set = fc.array(fc.nat(12)).map((pages) => new Set(pages));
  fc.assert(
    fc.property(set, set, (inner, outer) => {
      assert.equal(
        isWithin(runsOf(inner), runsOf(outer)),
        [...inner].every((page) => outer.has(page)),
      );
    }),
  );
});
