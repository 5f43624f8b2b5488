// The kernel's own list of written pages, PAGEMAP_SCAN, on memory of this process that the preload library registers as
// it does inside QEMU. Written by hand, and by a second thread that never rests, as a guest does.

import assert from 'node:assert/strict';
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { after, type TestContext, test } from 'node:test';
import { Worker } from 'node:worker_threads';
import koffi from 'koffi';
import { buildPreload } from '../../../native/build.ts';
import { errorText } from '../../base/errors.ts';
import { PageRuns, pageSize } from '../../base/page-runs.ts';
import { seededRandom } from '../../base/random.ts';
import { UserfaultfdScanner } from './userfaultfd.ts';

const root = mkdtempSync('/dev/shm/colo-scan-test-');
after(() => rmSync(root, { recursive: true, force: true }));

const ramPages = 32_768;
const ramBytes = ramPages * pageSize;

interface Tracked {
  address: bigint;
  ram: Buffer;
  scanner: UserfaultfdScanner;
}

/** Memory of this process under write tracking, nothing of it written; undefined: skipped, this host cannot. */
async function trackedMemory(context: TestContext, gently: boolean): Promise<Tracked | undefined> {
  const { path, reason } = await buildPreload();
  if (path === undefined) {
    context.skip(`no preload library: ${reason}`);
    return undefined;
  }
  process.env['COLO_RAM'] = join(root, 'ram');
  const fd = openSync(join(root, 'ram'), 'w+');
  ftruncateSync(fd, ramBytes);
  const map = koffi
    .load(path)
    .func('void *mmap64(void *where, size_t length, int prot, int flags, int fd, long offset)');
  const address = BigInt(map(null, ramBytes, 3, 1, fd, 0));
  closeSync(fd);
  const ram = Buffer.from(koffi.view(address, ramBytes)).fill(1);
  const scanner = new UserfaultfdScanner({ pid: process.pid, ramAddress: Number(address), ramBytes, gently });
  context.after(() => {
    scanner.close();
    koffi.load('libc.so.6').func('int munmap(void *where, size_t length)')(address, ramBytes);
  });
  try {
    scanner.scan({ rearm: true });
  } catch (error) {
    context.skip(errorText(error));
    return undefined;
  }
  return { address, ram, scanner };
}

function pagesOf(runs: PageRuns): number[] {
  const pages: number[] = [];
  runs.forEach((start, end) => {
    for (let at = start; at < end; at += pageSize) pages.push(at / pageSize);
  });
  return pages;
}

function write(ram: Buffer, page: number): void {
  ram[page * pageSize + 9] = ((ram[page * pageSize + 9] ?? 0) + 1) % 256;
}

// In one walk, as under TCG, and listed first and protected then, as under KVM.
for (const [how, gently] of [
  ['at once', false],
  ['gently', true],
] as const) {
  test(`${how}: written pages are listed once each and in order, however many stretches of them there are`, async (context) => {
    const memory = await trackedMemory(context, gently);
    if (memory === undefined) return;
    const { ram, scanner } = memory;
    // Around 512, where the kernel hands regions over, and 8192, what one call of ours has room for.
    for (const count of [1, 511, 512, 513, 700, 1_024, 2_800, 8_191, 8_192, 8_193, 10_000, 16_384]) {
      const written = Array.from({ length: count }, (_, index) => 2 * index);
      for (const page of written) write(ram, page);
      assert.deepEqual(pagesOf(scanner.scan({ rearm: false })), written, `${count} stretches, counted`);
      assert.deepEqual(pagesOf(scanner.scan({ rearm: true })), written, `${count} stretches, collected`);
      assert.equal(scanner.scan({ rearm: false }).pages, 0, `${count} stretches: collected once`);
    }
  });

  test(`${how}: while a guest writes, each list ascends, and no page that it wrote is missed`, async (context) => {
    const memory = await trackedMemory(context, gently);
    if (memory === undefined) return;
    const { ram, scanner, address } = memory;
    const copy = Buffer.from(ram);
    const shared = new Int32Array(new SharedArrayBuffer(8));
    const worker = new Worker(writer, { eval: true, workerData: { address, ramBytes, shared } });
    const ended = new Promise((resolve) => worker.once('exit', resolve));
    let largest = 0;
    try {
      for (let round = 0; round < 16; round++) {
        const from = Atomics.load(shared, 1);
        while (Atomics.load(shared, 1) - from < 2_000) Atomics.wait(shared, 1, Atomics.load(shared, 1), 1);
        const counted = scanner.scan({ rearm: false });
        // Every other time some pages of the list first, as a capture does before the stop.
        const first = round % 2 === 0 ? scanner.rearm(counted) : new PageRuns();
        first.forEach((start, end) => void ram.copy(copy, start, start, end));
        const collected = scanner.scan({ rearm: true });
        // A page that is written while it is copied is in the next list too.
        collected.forEach((start, end) => void ram.copy(copy, start, start, end));
        largest = Math.max(largest, counted.runs, collected.runs);
      }
    } finally {
      Atomics.store(shared, 0, 1);
      await ended;
    }
    scanner.scan({ rearm: true }).forEach((start, end) => void ram.copy(copy, start, start, end));
    assert.ok(copy.equals(ram), 'a page was written and never listed');
    assert.ok(largest > 512, `at most ${largest} stretches in one list: nothing was tried`);
  });

  test(`${how}: what is written at random is listed exactly`, async (context) => {
    const memory = await trackedMemory(context, gently);
    if (memory === undefined) return;
    const { ram, scanner } = memory;
    const random = seededRandom(12);
    for (let round = 0; round < 60; round++) {
      const written = new Set<number>();
      const count = Math.floor(random() ** 3 * 12_000);
      for (let index = 0; index < count; index++) written.add(Math.floor(random() * ramPages));
      for (const page of written) write(ram, page);
      assert.deepEqual(
        pagesOf(round % 2 === 0 ? scanner.scan({ rearm: true }) : scanner.rearm(scanner.scan({ rearm: false }))),
        [...written].sort((a, b) => a - b),
      );
    }
  });
}

/** Writes pages at random through the tracked mapping until told to end; counts its writes in shared[1]. */
const writer = `
const koffi = require('koffi');
const { workerData: { address, ramBytes, shared } } = require('node:worker_threads');
const ram = Buffer.from(koffi.view(address, ramBytes));
let seed = 1;
while (Atomics.load(shared, 0) === 0) {
  for (let n = 0; n < 40; n++) {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    const at = (seed >>> 12) % (ramBytes / 4096) * 4096;
    ram[at] = (ram[at] + 1) % 256;
  }
  Atomics.add(shared, 1, 40);
  Atomics.notify(shared, 1);
}`;
