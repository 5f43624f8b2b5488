// Memory in several places is scanned as one, with the offsets of the RAM file.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PageRuns, pageSize } from '../../base/page-runs.ts';
import { scannerOf } from './pieces.ts';
import type { PageScanner } from './tracker.ts';

function runsOf(...pages: [from: number, to: number][]): PageRuns {
  const runs = new PageRuns();
  for (const [from, to] of pages) runs.add(from * pageSize, to * pageSize);
  return runs;
}

/** A scanner whose pages were all written, and what it was asked. */
function scanner(written: PageRuns, asked: string[], kind: 'userfaultfd' | 'soft-dirty'): PageScanner {
  const scan = ({ rearm }: { rearm: boolean }) => {
    asked.push(rearm ? 'rearm' : 'look');
    return written;
  };
  const rearm = (listed: PageRuns) => {
    asked.push(listed.bounds.map((at) => at / pageSize).join());
    return listed;
  };
  const close = () => undefined;
  return kind === 'soft-dirty' ? { kind, mustStand: true, scan, close } : { kind, scan, rearm, close };
}

function pieces(asked: string[], kind: 'userfaultfd' | 'soft-dirty') {
  return scannerOf([
    { offset: 0, bytes: 10 * pageSize, scanner: scanner(runsOf([1, 2], [8, 10]), asked, kind) },
    { offset: 10 * pageSize, bytes: 5 * pageSize, scanner: scanner(runsOf([0, 1], [3, 4]), asked, kind) },
  ]);
}

test('what was written in each place is one list', () => {
  const asked: string[] = [];
  assert.deepEqual(pieces(asked, 'userfaultfd').scan({ rearm: true }).bounds, runsOf([1, 2], [8, 11], [13, 14]).bounds);
  assert.deepEqual(asked, ['rearm', 'rearm']);
});

test('where one look re-arms the whole process, all look before the last one re-arms', () => {
  const asked: string[] = [];
  const both = pieces(asked, 'soft-dirty');
  both.scan({ rearm: true });
  assert.deepEqual([asked, both.mustStand, typeof both.rearm], [['look', 'rearm'], true, 'undefined']);
});

test('a list is re-armed in each place by what is of it', () => {
  const asked: string[] = [];
  const listed = runsOf([2, 3], [9, 12]);
  assert.deepEqual(pieces(asked, 'userfaultfd').rearm?.(listed).bounds, listed.bounds);
  assert.deepEqual(asked, ['2,3,9,10', '0,2']);
});
