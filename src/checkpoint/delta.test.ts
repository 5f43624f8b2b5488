// Differences: whatever the two versions of the pages are, what comes out is the page, and equal pages do not travel.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { PageRuns, pageSize } from '../base/page-runs.ts';
import { addBase, contains, DeltaEncoder } from './delta.ts';

const pagesMax = 12;

function runsOf(pages: readonly number[]): PageRuns {
  const runs = new PageRuns();
  for (const page of pages) runs.add(page * pageSize, (page + 1) * pageSize);
  return runs;
}

function gather(ram: Buffer, runs: PageRuns): Buffer {
  const parts: Buffer[] = [];
  runs.forEach((start, end) => void parts.push(ram.subarray(start, end)));
  return Buffer.concat([Buffer.alloc(0), ...parts]);
}

const somePages = fc
  .uniqueArray(fc.integer({ min: 0, max: pagesMax - 1 }))
  .map((pages) => pages.sort((left, right) => left - right));

test('a base and what travels give the pages back, and equal pages stay at home', () => {
  const change = fc.record({ page: fc.integer({ min: 0, max: pagesMax - 1 }), at: fc.nat(1023), word: fc.nat() });
  fc.assert(
    fc.property(somePages, somePages, fc.array(change), fc.integer({ min: 1, max: 5 }), (old, now, changes, cut) => {
      const shadow = Buffer.alloc(pagesMax * pageSize);
      for (let at = 0; at < shadow.length; at += 4) shadow.writeUInt32LE((at * 2654435761) >>> 0, at);
      const ram = Buffer.from(shadow);
      for (const { page, at, word } of changes) {
        // Now and then a page is cleared: its difference is worse than the page.
        if (word % 7 === 0) ram.fill(0, page * pageSize, (page + 1) * pageSize);
        else ram.writeUInt32LE(word, page * pageSize + at * 4);
      }
      const encoder = new DeltaEncoder({ runs: runsOf(old), contents: gather(shadow, runsOf(old)) });
      const rebuilt = Buffer.from(shadow);
      const travelled = new Set<number>();
      for (let from = 0; from < now.length; from += cut) {
        const runs = runsOf(now.slice(from, from + cut));
        const batch = encoder.encode(runs, gather(ram, runs), Buffer.alloc(runs.bytes));
        assert.equal(batch.contents.length, batch.runs.bytes);
        assert.ok(contains(runs, batch.runs) && contains(batch.runs, batch.deltas));
        addBase(batch, shadow);
        let at = 0;
        batch.runs.forEach((start, end) => {
          for (let page = start; page < end; page += pageSize) travelled.add(page / pageSize);
          rebuilt.set(batch.contents.subarray(at, at + end - start), start);
          at += end - start;
        });
      }
      for (const page of now) {
        const [start, end] = [page * pageSize, (page + 1) * pageSize];
        const isEqual = ram.subarray(start, end).equals(shadow.subarray(start, end));
        assert.ok(rebuilt.subarray(start, end).equals(ram.subarray(start, end)), `page ${page}`);
        assert.equal(travelled.has(page), !(isEqual && old.includes(page)), `page ${page}`);
      }
    }),
  );
});

test('a page with one changed word is a difference of zeros, a cleared one travels as it is', () => {
  const shadow = Buffer.alloc(2 * pageSize, 0xa5);
  const runs = runsOf([0, 1]);
  const ram = Buffer.from(shadow);
  ram.writeUInt32LE(1, 100);
  ram.fill(0, pageSize);
  const batch = new DeltaEncoder({ runs, contents: shadow }).encode(runs, ram, Buffer.alloc(runs.bytes));
  assert.deepEqual(batch.deltas.bounds, [0, pageSize]);
  assert.equal(batch.contents.subarray(0, pageSize).filter((byte) => byte !== 0).length, 4);
  assert.ok(batch.contents.subarray(pageSize).every((byte) => byte === 0));
});

test('a run is contained only in one run', () => {
  const whole = runsOf([1, 2, 5]);
  assert.ok(contains(whole, runsOf([1])) && contains(whole, runsOf([1, 2])) && contains(whole, runsOf([])));
  for (const pages of [[0], [3], [2, 3], [4, 5], [5, 6], [6], [0, 1]]) assert.ok(!contains(whole, runsOf(pages)));
});
