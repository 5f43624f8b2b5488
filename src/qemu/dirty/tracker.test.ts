// What the trackers of written pages do without the kernel's help: comparing, joining and putting back; and how they
// read what the kernel says.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { PageRuns, pageSize } from '../../base/page-runs.ts';
import { CompareScanner } from './compare.ts';
import { addSoftDirty, hostHasSwap } from './soft-dirty.ts';
import { RunTracker } from './tracker.ts';
import { unionRuns } from './union.ts';

const pages = 200;

function runsOf(set: Iterable<number>): PageRuns {
  const runs = new PageRuns();
  for (const page of [...new Set(set)].sort((a, b) => a - b)) runs.add(page * pageSize, (page + 1) * pageSize);
  return runs;
}

const pageSets = fc.array(fc.nat(pages - 1), { maxLength: 60 });

test('the union has every page of both, once, in order', () => {
  fc.assert(
    fc.property(pageSets, pageSets, (left, right) => {
      assert.deepEqual(unionRuns(runsOf(left), runsOf(right)).bounds, runsOf([...left, ...right]).bounds);
    }),
  );
});

/** Runs as lists are made: of any length, with gaps or touching. */
const anyRuns = fc.array(fc.tuple(fc.nat(9), fc.integer({ min: 1, max: 9 })), { maxLength: 40 }).map((steps) => {
  const runs = new PageRuns();
  let at = 0;
  for (const [gap, length] of steps) {
    runs.add((at + gap) * pageSize, (at + gap + length) * pageSize);
    at += gap + length;
  }
  return runs;
});

function pageSet(runs: PageRuns): Set<number> {
  const set = new Set<number>();
  runs.forEach((start, end) => {
    for (let at = start; at < end; at += pageSize) set.add(at / pageSize);
  });
  return set;
}

test('the union of runs of any length has every page of both, and neither of them is changed by it', () => {
  fc.assert(
    fc.property(anyRuns, anyRuns, (left, right) => {
      const before = [[...left.bounds], [...right.bounds]];
      const union = unionRuns(left, right);
      assert.deepEqual(union.bounds, runsOf([...pageSet(left), ...pageSet(right)]).bounds);
      union.add(union.end + pageSize, union.end + 2 * pageSize);
      assert.deepEqual([left.bounds, right.bounds], before);
    }),
  );
});

test('a list of pages that is not in order cannot be made', () => {
  fc.assert(
    fc.property(anyRuns, fc.nat(400), fc.integer({ min: -3, max: 9 }), (runs, start, length) => {
      const before = [...runs.bounds];
      const add = () => runs.add(start * pageSize, (start + length) * pageSize);
      if (length > 0 && start * pageSize >= runs.end) return add();
      assert.throws(add, /ascend/);
      assert.deepEqual(runs.bounds, before);
    }),
  );
});

test('the first collect reports every page, later ones what was written and what was put back', () => {
  const ram = Buffer.alloc(pages * pageSize);
  const tracker = new RunTracker(new CompareScanner(ram), ram.length);
  assert.equal(tracker.count(), pages);
  assert.deepEqual(tracker.collect().bounds, [0, ram.length]);
  assert.equal(tracker.collect().pages, 0);
  ram[5 * pageSize + 7] = 1;
  ram[130 * pageSize] = 1;
  assert.equal(tracker.count(), 2);
  const captured = tracker.collect();
  assert.deepEqual(captured.bounds, runsOf([5, 130]).bounds);
  ram[6 * pageSize] = 1;
  tracker.putBack(captured);
  assert.equal(tracker.count(), 3);
  assert.deepEqual(tracker.collect().bounds, runsOf([5, 6, 130]).bounds);
  assert.equal(tracker.count(), 0);
});

test('comparing finds exactly the pages whose content changed', () => {
  fc.assert(
    fc.property(pageSets, (written) => {
      const ram = Buffer.alloc(pages * pageSize);
      const scanner = new CompareScanner(ram);
      for (const page of written) ram[page * pageSize + pageSize - 1] = 9;
      assert.deepEqual(scanner.scan({ rearm: false }).bounds, runsOf(written).bounds);
      assert.deepEqual(scanner.scan({ rearm: true }).bounds, runsOf(written).bounds);
      assert.equal(scanner.scan({ rearm: true }).runs, 0);
    }),
    { numRuns: 20 },
  );
});

test('a page that is changed, sent while the guest runs, and changed back is not left behind by comparing', () => {
  const ram = Buffer.alloc(pages * pageSize);
  const peer = Buffer.alloc(ram.length, 0xff);
  const tracker = new RunTracker(new CompareScanner(ram), ram.length);
  const send = (runs: PageRuns) => runs.forEach((start, end) => (tracker.copy ?? ram).copy(peer, start, start, end));
  const first = tracker.collect();
  ram[5 * pageSize] = 1;
  send(first);
  ram[5 * pageSize] = 0;
  send(tracker.collect());
  assert.ok(peer.equals(ram));
});

test('a page is soft-dirty when its bit is set, or when the kernel has no entry for it', () => {
  const present = 0x8000_0000;
  const softDirty = 1 << 23;
  const high = [present, present | softDirty, 0, present, present, present | softDirty];
  const runs = new PageRuns();
  addSoftDirty(runs, Uint32Array.from(high.flatMap((each) => [0xffff_ffff, each >>> 0])), 10);
  assert.deepEqual(runs.bounds, runsOf([11, 12, 15]).bounds);
});

test('a host with swap is seen as one', () => {
  const heading = 'Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n';
  assert.equal(hostHasSwap(heading), false);
  assert.equal(hostHasSwap(`${heading}/dev/vda2 partition 8388604 0 -2\n`), true);
});

test('after a scan that failed in the middle every page counts as written: it may have re-armed some', () => {
  const written = new Set([3, 90]);
  let fails = true;
  const tracker = new RunTracker(
    {
      kind: 'userfaultfd',
      scan: ({ rearm }) => {
        const runs = runsOf(written);
        if (rearm) written.clear();
        if (fails && rearm) throw new Error('the second half could not be walked');
        return runs;
      },
      close: () => undefined,
    },
    pages * pageSize,
  );
  fails = false;
  tracker.collect();
  written.add(3);
  fails = true;
  assert.throws(() => tracker.collect());
  fails = false;
  assert.equal(tracker.collect().pages, pages);
  assert.equal(tracker.collect().pages, 0);
});

test('some pages of a list are collected early, and the rest with what was written since; not when pages were put back', () => {
  const written = new Set([3, 4, 90]);
  const scan = ({ rearm }: { rearm: boolean }) => {
    const runs = runsOf(written);
    if (rearm) written.clear();
    return runs;
  };
  const rearm = (listed: PageRuns) => {
    for (const page of pageSet(listed)) written.delete(page);
    return listed;
  };
  const tracker = new RunTracker({ kind: 'userfaultfd', scan, rearm, close: () => undefined }, pages * pageSize);
  assert.equal(tracker.collectListed(runsOf([3])), undefined, 'the first collect is of every page');
  tracker.collect();
  written.add(3).add(4).add(90);
  assert.deepEqual(tracker.list().bounds, runsOf([3, 4, 90]).bounds);
  assert.deepEqual(tracker.collectListed(runsOf([3, 4]))?.bounds, runsOf([3, 4]).bounds);
  written.add(4);
  assert.deepEqual(tracker.collect().bounds, runsOf([4, 90]).bounds);
  tracker.putBack(runsOf([7]));
  assert.equal(tracker.collectListed(runsOf([7])), undefined);
  assert.deepEqual(tracker.collect().bounds, runsOf([7]).bounds);
});
