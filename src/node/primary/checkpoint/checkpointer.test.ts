// How written pages are listed while the guest runs, where looking at them and tracking them anew are two steps; and
// that what the proxy hands over has room in a checkpoint.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PageRuns, pageSize } from '../../../base/page-runs.ts';
import { heldBytesMax, tableBytesMax } from '../../../checkpoint/limits.ts';
import { proxyLimits } from '../../../proxy/limits.ts';
import { type PageScanner, RunTracker } from '../../../qemu/dirty/tracker.ts';
import { collectStanding } from './checkpointer.ts';

/** A guest that writes whenever it is given a moment: also between the look at its pages and their being cleared. */
class BusyGuest {
  readonly tracker: RunTracker;
  readonly written = new Set<number>();
  readonly dirty = new Set<number>();
  isRunning = true;
  failsNext = false;
  private readonly pages: number;
  private next = 0;

  constructor(pages: number) {
    this.pages = pages;
    const scanner: PageScanner = {
      kind: 'soft-dirty',
      mustStand: true,
      scan: ({ rearm }) => {
        const runs = new PageRuns();
        for (const page of [...this.dirty].sort((a, b) => a - b)) runs.add(page * pageSize, (page + 1) * pageSize);
        this.write();
        if (rearm) this.dirty.clear();
        if (this.failsNext) throw new Error('the page map cannot be read');
        return runs;
      },
      close: () => undefined,
    };
    this.tracker = new RunTracker(scanner, pages * pageSize);
  }

  write(): void {
    if (!this.isRunning) return;
    this.next = (this.next + 7) % this.pages;
    this.written.add(this.next);
    this.dirty.add(this.next);
  }

  stop(): Promise<void> {
    this.isRunning = false;
    return Promise.resolve();
  }

  resume(): Promise<void> {
    this.isRunning = true;
    return Promise.resolve();
  }
}

test('what a guest writes while its written pages are listed is in this list or in the next one', async () => {
  const guest = new BusyGuest(64);
  guest.tracker.collect();
  guest.written.clear();
  guest.dirty.clear();
  const listed = new Set<number>();
  for (let round = 0; round < 4; round += 1) {
    guest.write();
    const runs = await collectStanding(guest);
    runs.forEach((start, end) => {
      for (let at = start; at < end; at += pageSize) listed.add(at / pageSize);
    });
    assert.ok(guest.isRunning);
  }
  assert.deepEqual(listed, guest.written);
});

test('a guest whose pages could not be listed runs on, and all of them count as written', async () => {
  const guest = new BusyGuest(8);
  guest.tracker.collect();
  guest.failsNext = true;
  await assert.rejects(collectStanding(guest));
  assert.ok(guest.isRunning);
  guest.failsNext = false;
  const runs = await collectStanding(guest);
  assert.equal(runs.pages, 8);
});

test('what the proxy puts into a checkpoint has room in its messages', () => {
  assert.ok(proxyLimits.heldBytesInCheckpointMax <= heldBytesMax);
  assert.ok(proxyLimits.tableBytesMax <= tableBytesMax);
});
