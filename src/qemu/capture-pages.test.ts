// The pages of a capture, copied early and late: whatever the guest writes meanwhile, what comes out is its RAM at the
// stop.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { PageRuns, pageSize } from '../base/page-runs.ts';
import { CapturePages, copyRuns, mergePages, partsOf } from './capture-pages.ts';
import { CapturePool } from './capture-pool.ts';
import { type PageScanner, RunTracker } from './dirty/tracker.ts';
import { unionRuns } from './dirty/union.ts';
import { capturePagesBytesFirst, earlyBytesAtOnce, earlyPagesMin, earlyRunsAtOnce } from './limits.ts';

function runsOf(set: Iterable<number>): PageRuns {
  const runs = new PageRuns();
  for (const page of [...new Set(set)].sort((a, b) => a - b)) runs.add(page * pageSize, (page + 1) * pageSize);
  return runs;
}

const pageSets = fc.array(fc.nat(60), { maxLength: 40 });

test('early and late pages come into one order, and a page of both is the late one', () => {
  fc.assert(
    fc.property(pageSets, pageSets, fc.nat(3), (earlyPages, latePages, spare) => {
      const early = runsOf(earlyPages);
      const late = runsOf(latePages);
      const union = unionRuns(early, late);
      const buffer = Buffer.alloc(union.bytes + late.bytes + spare * pageSize);
      const old = Buffer.alloc(61 * pageSize);
      const now = Buffer.alloc(old.length);
      for (let page = 0; page < 61; page++) {
        old.fill(page + 1, page * pageSize, (page + 1) * pageSize);
        now.fill(latePages.includes(page) ? 128 + page : page + 1, page * pageSize, (page + 1) * pageSize);
      }
      copyRuns(old, early, buffer);
      const lateAt = buffer.length - late.bytes;
      copyRuns(now, late, buffer.subarray(lateAt));
      mergePages(buffer, { early, late, lateAt });
      const wanted = Buffer.alloc(union.bytes);
      copyRuns(now, union, wanted);
      assert.ok(buffer.subarray(0, union.bytes).equals(wanted));
    }),
  );
});

test('a long list is worked off in parts of bounded runs and bytes, and nothing of it is left out', () => {
  const listed = new PageRuns();
  listed.add(0, 3 * earlyBytesAtOnce);
  for (let run = 0; run < 2 * earlyRunsAtOnce + 5; run++)
    listed.add(listed.end + pageSize, listed.end + pageSize * (2 + (run % 7)));
  let joined = new PageRuns();
  for (const part of partsOf(listed)) {
    assert.ok(part.bytes <= earlyBytesAtOnce && part.runs <= earlyRunsAtOnce);
    joined = unionRuns(joined, part);
  }
  assert.deepEqual(joined.bounds, listed.bounds);
});

/** RAM whose writes are tracked exactly; re-arming a list may take pages near it too, as a real one does. */
class Guest {
  readonly ram: Buffer;
  readonly dirty = new Set<number>();
  readonly tracker: RunTracker;
  failsOnce = false;

  constructor(pages: number) {
    this.ram = Buffer.alloc(pages * pageSize);
    const take = (pagesTaken: Iterable<number>) => {
      const runs = runsOf(pagesTaken);
      for (const page of pagesTaken) this.dirty.delete(page);
      if (this.failsOnce) throw new Error('the scan failed');
      return runs;
    };
    const scanner: PageScanner = {
      kind: 'userfaultfd',
      scan: ({ rearm }) => (rearm ? take([...this.dirty]) : runsOf(this.dirty)),
      rearm: (listed) =>
        take(
          [...this.dirty].filter((page) => page * pageSize >= (listed.bounds[0] ?? 0) && page * pageSize < listed.end),
        ),
      close: () => undefined,
    };
    this.tracker = new RunTracker(scanner, this.ram.length);
  }

  write(page: number): void {
    this.dirty.add(page);
    this.ram.writeUInt32LE((this.ram.readUInt32LE(page * pageSize) + 1) >>> 0, page * pageSize);
  }
}

const guestPages = 3_000;
const bursts = fc.record({
  before: fc.constantFrom(0, 10, earlyPagesMin, 700, 1_500, 2_900),
  perTurn: fc.constantFrom(0, 1, 50, 2_000),
  seed: fc.nat(1_000_000),
  fails: fc.constantFrom('no', 'no', 'no', 'abandoned', 'scan'),
});

test('after any captures, also failed ones, a peer that got their pages has the RAM of the last stop', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(bursts, { minLength: 1, maxLength: 8 }), async (rounds) => {
      const guest = new Guest(guestPages);
      const peer = Buffer.alloc(guest.ram.length, 0xff);
      const pool = new CapturePool();
      let state = 1;
      const next = () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) >>> 8;
      for (const { before, perTurn, seed, fails } of [...rounds, { before: 5, perTurn: 0, seed: 1, fails: 'no' }]) {
        state = seed;
        for (let count = 0; count < before; count++) guest.write(next() % guestPages);
        const turn = async () => {
          for (let count = 0; count < perTurn; count++) guest.write(next() % guestPages);
          guest.failsOnce = fails === 'scan';
        };
        const pages = new CapturePages({ ram: guest.ram, tracker: guest.tracker, pool, turn });
        try {
          await pages.prepare();
          await turn();
          pages.collect();
          pages.copy();
          if (fails === 'abandoned') throw new Error('the secondary was lost');
        } catch {
          guest.failsOnce = false;
          pages.abandon();
          continue;
        }
        const stopped = Buffer.from(guest.ram);
        await turn();
        const { runs, pages: contents, release } = pages.merge();
        assert.equal(contents.length, runs.bytes);
        let at = 0;
        runs.forEach((start, end) => (at += contents.copy(peer, start, at, at + end - start)));
        assert.ok(peer.equals(stopped), 'a page of it is not that of the stop');
        release();
      }
    }),
    { numRuns: 15 },
  );
});

test('what was copied early is not copied in the pause, and few pages are not copied early', async () => {
  for (const [count, isEarly] of [
    [earlyPagesMin - 1, false],
    [earlyPagesMin, true],
  ] as const) {
    const guest = new Guest(guestPages);
    guest.tracker.collect();
    for (let page = 0; page < count; page++) guest.write(2 * page);
    const pages = new CapturePages({
      ram: guest.ram,
      tracker: guest.tracker,
      pool: new CapturePool(),
      turn: async () => undefined,
    });
    await pages.prepare();
    assert.equal(guest.dirty.size, isEarly ? 0 : count);
    guest.write(1);
    assert.equal(pages.collect().pages, count + 1);
    pages.copy();
    assert.equal(pages.merge().pages.length, (count + 1) * pageSize);
  }
  assert.ok(earlyPagesMin * pageSize < capturePagesBytesFirst);
});
