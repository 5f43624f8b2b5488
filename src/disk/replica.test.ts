// The replica on real files, against a model: after apply(n) it holds the primary's bytes at mark n and nothing later,
// whatever was written, aborted and marked again meanwhile, and whatever part of an apply a crash let through.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { ColoError } from '../base/errors.ts';
import { readHeader, writeHeader } from './header.ts';
import { encodeRecordHead, type RecordKind, recordKinds } from './message.ts';
import { Replica, recover, replicaPath } from './replica.ts';
import { bootId, Folder } from './storage.ts';

const diskBytes = 8192;
const page = 512;
const sizes = [diskBytes, diskBytes];

async function withFolder<T>(use: (folder: string) => Promise<T>): Promise<T> {
  const folder = mkdtempSync(join(tmpdir(), 'colo-replica-'));
  try {
    return await use(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** A primary that is a row of buffers, and the replica it feeds. */
class Model {
  readonly disks = sizes.map((size) => Buffer.alloc(size));
  readonly marked = new Map<number, Buffer[]>();
  held = 0;
  position = 0;
  readonly failures: ColoError[] = [];
  readonly folder: string;
  private opened: Replica | undefined;

  constructor(folder: string) {
    this.folder = join(folder, 'replica');
  }

  get replica(): Replica {
    assert.ok(this.opened !== undefined);
    return this.opened;
  }

  async begin(durable = false): Promise<this> {
    this.opened = await Replica.begin({
      folder: this.folder,
      vm: 'test',
      term: 1,
      session: { sizes, durable },
      events: { held: (position) => (this.held = position), failed: (error) => void this.failures.push(error) },
    });
    return this;
  }

  write(disk: number, offset: number, length: number, value: number): void {
    const kind: RecordKind = value === 0 ? recordKinds.zeroes : recordKinds.data;
    this.disks[disk]?.fill(value, offset, offset + length);
    const data = value === 0 ? Buffer.alloc(0) : Buffer.alloc(length, value);
    this.position += 1;
    const head = encodeRecordHead({ disk, kind, offset, length, position: this.position });
    assert.equal(this.replica.receive(Buffer.concat([head, data])), undefined);
  }

  mark(epoch: number): void {
    this.marked.set(
      epoch,
      this.disks.map((disk) => Buffer.from(disk)),
    );
    assert.equal(this.replica.mark({ epoch, position: this.position }), undefined);
  }

  files(folder = this.folder): Buffer[] {
    return sizes.map((_, disk) => readFileSync(replicaPath(folder, disk)));
  }
}

const write = fc.record({
  disk: fc.integer({ min: 0, max: 1 }),
  offset: fc.integer({ min: 0, max: diskBytes - 1 }),
  length: fc.integer({ min: 1, max: 3000 }),
  value: fc.integer({ min: 0, max: 250 }),
});
const epoch = fc.record({ writes: fc.array(write, { maxLength: 12 }), aborts: fc.integer({ min: 0, max: 2 }) });

function writeAll(model: Model, writes: { disk: number; offset: number; length: number; value: number }[]): void {
  for (const each of writes)
    model.write(each.disk, each.offset, Math.min(each.length, diskBytes - each.offset), each.value);
}

test('after each apply the replica is the primary at that mark, and nothing later', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(epoch, { minLength: 1, maxLength: 5 }), fc.array(write), (epochs, late) =>
      withFolder(async (folder) => {
        const model = await new Model(folder).begin();
        for (const [index, { writes, aborts }] of epochs.entries()) {
          const number = index + 1;
          for (let turn = 0; turn < aborts; turn += 1) {
            writeAll(model, writes.slice(turn));
            model.mark(number);
            model.replica.abort(number);
          }
          writeAll(model, writes);
          model.mark(number);
          writeAll(model, late);
          await model.replica.complete(number);
          await model.replica.apply(number);
          assert.deepEqual(model.files(), model.marked.get(number));
          assert.equal(readHeader(new Folder(model.folder))?.epoch, number);
        }
        await model.replica.takeOver(1);
        assert.deepEqual(model.files(), model.marked.get(epochs.length));
        assert.deepEqual(await recover(model.folder), { kind: 'owner', epoch: epochs.length });
        assert.equal(
          readdirSync(model.folder).some((name) => name.startsWith('journal.')),
          false,
        );
      }),
    ),
    { numRuns: 40 },
  );
});

test('a crash in the middle of an apply is repaired: whatever part of it had reached the files', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(write, { maxLength: 10 }),
      fc.array(write, { minLength: 1, maxLength: 20 }),
      fc.array(fc.boolean(), { minLength: (diskBytes / page) * 2, maxLength: (diskBytes / page) * 2 }),
      (first, second, reached) =>
        withFolder(async (folder) => {
          const model = await new Model(folder).begin(true);
          model.write(0, 0, 100, 7);
          model.mark(1);
          await model.replica.complete(1);
          await model.replica.apply(1);
          writeAll(model, first);
          model.mark(2);
          model.replica.abort(2);
          writeAll(model, second);
          model.mark(2);
          writeAll(model, first);
          await model.replica.complete(2);
          const crashed = join(folder, 'crashed');
          cpSync(model.folder, crashed, { recursive: true });
          const before = model.files();
          await model.replica.apply(2);
          const wanted = model.files();
          // The crash: the header says "applying", and of every page either the old or the new is there.
          const mixed = before.map((disk) => Buffer.from(disk));
          reached.forEach((there, index) => {
            const disk = index % 2;
            const at = Math.floor(index / 2) * page;
            if (there) wanted[disk]?.copy(mixed[disk] ?? Buffer.alloc(0), at, at, at + page);
          });
          mixed.forEach((disk, index) => writeFileSync(replicaPath(crashed, index), disk));
          const header = readHeader(new Folder(crashed));
          assert.ok(header !== undefined);
          writeHeader(new Folder(crashed), { ...header, state: 'applying', epoch: 2, through: 3 }, false);
          assert.deepEqual(await recover(crashed), { kind: 'epoch', epoch: 2 });
          assert.deepEqual(model.files(crashed), wanted);
          assert.deepEqual(await recover(crashed), { kind: 'epoch', epoch: 2 });
          await model.replica.close();
        }),
    ),
    { numRuns: 25 },
  );
});

test('a checkpoint whose records or mark are missing is not complete', () =>
  withFolder(async (folder) => {
    const model = await new Model(folder).begin();
    model.write(0, 0, 10, 1);
    assert.ok(model.replica.mark({ epoch: 1, position: 2 }) instanceof ColoError);
    await assert.rejects(model.replica.complete(1), /mark/);
    const head = encodeRecordHead({ disk: 0, kind: 2, offset: 0, length: 1, position: 5 });
    assert.ok(model.replica.receive(head) instanceof ColoError);
    await model.replica.close();
  }));

test('a replica of another boot is trusted only when it was written durably; one in its first copy never', () =>
  withFolder(async (folder) => {
    assert.deepEqual(await recover(folder), { kind: 'none' });
    const model = await new Model(folder).begin();
    assert.deepEqual(await recover(model.folder), { kind: 'syncing' });
    model.mark(1);
    await model.replica.complete(1);
    await model.replica.apply(1);
    assert.deepEqual(await recover(model.folder, 'another boot'), { kind: 'unsure' });
    assert.deepEqual(await recover(model.folder, bootId()), { kind: 'epoch', epoch: 1 });
    await model.replica.close();
  }));

test('the newest disks of a VM are never overwritten by a new session', () =>
  withFolder(async (folder) => {
    const model = await new Model(folder).begin();
    model.mark(1);
    await model.replica.complete(1);
    await model.replica.apply(1);
    await model.replica.takeOver(1);
    await assert.rejects(new Model(folder).begin(), /newest disks/);
    assert.ok(existsSync(replicaPath(model.folder, 0)));
  }));

test('a full disk refuses the checkpoint before it is committed, and the replica stays the epoch it is', (context) =>
  withFolder(async (folder) => {
    const small = join(folder, 'small');
    mkdirSync(small);
    const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=256k', 'none', small]).status === 0;
    if (!mounted) return context.skip('a small file system can be mounted by root only');
    try {
      const big = 1024 * 1024;
      const failures: ColoError[] = [];
      const replica = await Replica.begin({
        ...{ folder: join(small, 'replica'), vm: 'test', term: 1, session: { sizes: [big], durable: false } },
        events: { held: () => undefined, failed: (error) => void failures.push(error) },
      });
      let position = 0;
      const write = (offset: number, length: number) => {
        position += 1;
        const head = encodeRecordHead({ disk: 0, kind: recordKinds.data, offset, length, position });
        assert.equal(replica.receive(Buffer.concat([head, Buffer.alloc(length, position)])), undefined);
      };
      replica.mark({ epoch: 1, position });
      await replica.complete(1);
      await replica.apply(1);
      // The journal has room for it, the replica has not.
      write(0, 150 * 1024);
      replica.mark({ epoch: 2, position });
      await assert.rejects(replica.complete(2), /full/);
      assert.equal(failures.length, 0);
      // Now not even the journal.
      write(0, 200 * 1024);
      replica.abort(2);
      replica.mark({ epoch: 2, position });
      await assert.rejects(replica.complete(2), /full/);
      assert.match(failures[0]?.message ?? '', /full/);
      await replica.close();
      assert.deepEqual(await recover(join(small, 'replica')), { kind: 'epoch', epoch: 1 });
      assert.ok(readFileSync(replicaPath(join(small, 'replica'), 0)).every((byte) => byte === 0));
    } finally {
      spawnSync('umount', [small]);
    }
  }));
