// The replica on real files, against a model: after apply(n) it holds the primary's bytes at mark n and nothing later,
// whatever was written, aborted and marked again meanwhile, and whatever part of an apply a crash let through.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import fc from 'fast-check';
import { DiskActivity } from '../base/disk-activity.ts';
import { ColoError } from '../base/errors.ts';
import { headerName, readHeader, writeHeader } from './header.ts';
import { recordBytesMax, unflushedBytesMax } from './limits.ts';
import { encodeRecordHead, type RecordKind, recordKinds, type Session } from './message.ts';
import { recover, refuseOwner } from './recovery.ts';
import { Replica } from './replica.ts';
import { replicaPath } from './replica-files.ts';
import { bootId, Folder, type OpenHow, type StoredFile } from './storage.ts';

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

  async begin(durable = false, more: Partial<Session> = {}): Promise<this> {
    this.position = more.from ?? this.position;
    this.opened = await Replica.begin({
      folder: this.folder,
      vm: 'test',
      term: 1,
      session: { sizes, durable, ...more },
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

  /** The mark of an epoch, complete and applied. */
  async take(epoch: number): Promise<void> {
    this.mark(epoch);
    await this.replica.complete(epoch);
    await this.replica.apply(epoch);
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
        await model.replica.close();
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
          await model.take(1);
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
          await writeHeader(new Folder(crashed), { ...header, state: 'applying', epoch: 2, through: 3 }, false);
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
    await model.take(1);
    assert.deepEqual(await recover(model.folder, 'another boot'), { kind: 'unsure' });
    assert.deepEqual(await recover(model.folder, bootId()), { kind: 'epoch', epoch: 1 });
    await model.replica.close();
  }));

test('the newest disks of a VM are never overwritten by a new session', () =>
  withFolder(async (folder) => {
    const model = await new Model(folder).begin();
    await model.take(1);
    await model.replica.takeOver(1);
    await assert.rejects(new Model(folder).begin(), /newest disks/);
    assert.ok(existsSync(replicaPath(model.folder, 0)));
  }));

test('a replica that cannot be labelled as taken over says so, and stays the epoch that its label says', () =>
  withFolder(async (folder) => {
    const model = await new Model(folder).begin();
    await model.take(1);
    mkdirSync(join(model.folder, 'replica.json.new'));
    assert.equal(await model.replica.takeOver(1), false);
    assert.deepEqual(await recover(model.folder), { kind: 'epoch', epoch: 1 });
  }));

/** A disk that no write of the journal comes back from. */
class HangingFolder extends Folder {
  hangs = false;
  /** What it was asked since and does not answer. */
  asked = 0;

  override async open(name: string, how: OpenHow): Promise<StoredFile> {
    const file = await super.open(name, how);
    const write = file.write.bind(file);
    file.write = (parts, position) => (this.hangs ? this.neverAnswered() : write(parts, position));
    return file;
  }

  private neverAnswered(): Promise<void> {
    this.asked += 1;
    return new Promise(() => undefined);
  }
}

/** The disk hangs behind the first epoch, and a record comes. */
async function hang(storage: HangingFolder, replica: Replica): Promise<void> {
  replica.mark({ epoch: 1, position: 0 });
  await replica.complete(1);
  await replica.apply(1);
  storage.hangs = true;
  const head = encodeRecordHead({ disk: 0, kind: recordKinds.data, offset: 0, length: 512, position: 1 });
  assert.equal(replica.receive(Buffer.concat([head, Buffer.alloc(512, 7)])), undefined);
}

test('a takeover does not wait for records that a disk which hangs has not taken: they are thrown away', () =>
  withFolder(async (folder) => {
    const storage = new HangingFolder(folder);
    const session = { sizes: [page], durable: false };
    const events = { held: () => undefined, failed: () => undefined };
    const replica = await Replica.begin({ folder: storage, vm: 'test', term: 1, session, events });
    await hang(storage, replica);
    assert.equal(await replica.takeOver(2), true);
    assert.deepEqual(await recover(folder), { kind: 'owner', epoch: 1 });
  }));

test('what a disk that hangs was asked is heard of, and what it answers is not', () =>
  withFolder(async (folder) => {
    const storage = new HangingFolder(folder);
    const activity = new DiskActivity();
    const events = { held: () => undefined, failed: () => undefined };
    const session = { sizes: [page], durable: true };
    const replica = await Replica.begin({ folder: storage, vm: 'test', term: 1, session, events, activity });
    await hang(storage, replica);
    while (storage.asked === 0) await nextTurn();
    assert.equal(activity.look(2), undefined);
    assert.equal(activity.look(2), folder);
  }));

/** A disk that takes its time to remove a file, and says what is done to it. */
class SlowlyRemoving extends Folder {
  readonly done: string[] = [];

  override async remove(name: string): Promise<void> {
    for (let turn = 0; turn < 50; turn += 1) await nextTurn();
    await super.remove(name);
    this.done.push(`removed ${name}`);
  }

  override async replaceText(name: string, text: string, flush: boolean): Promise<void> {
    const { state, epoch } = JSON.parse(text.split('\n')[0] ?? '') as { state: string; epoch: number };
    this.done.push(`${state} ${epoch}`);
    await super.replaceText(name, text, flush);
  }
}

test('the guest does not stand still while a journal is removed, and no later apply begins before it is gone', () =>
  withFolder(async (folder) => {
    const storage = new SlowlyRemoving(folder);
    const events = { held: () => undefined, failed: () => undefined };
    const replica = await Replica.begin({
      ...{ folder: storage, vm: 'test', term: 1, session: { sizes: [page], durable: false }, events },
    });
    replica.mark({ epoch: 1, position: 0 });
    for (let epoch = 1; epoch <= 3; epoch += 1) {
      await replica.complete(epoch);
      await replica.apply(epoch);
      storage.done.push(`applied ${epoch}`);
      const head = encodeRecordHead({ disk: 0, kind: recordKinds.data, offset: 0, length: 512, position: epoch });
      assert.equal(replica.receive(Buffer.concat([head, Buffer.alloc(512, epoch)])), undefined);
      replica.mark({ epoch: epoch + 1, position: epoch });
    }
    await replica.close();
    const journals = storage.done.filter((what) => what.startsWith('removed journal'));
    assert.ok(journals.length >= 2);
    const [first = ''] = journals;
    const at = (what: string) => storage.done.indexOf(what);
    assert.ok(at('applied 1') < at(first) && at(first) < at('applying 2'), storage.done.join(', '));
  }));

test('a durable replica brings its initial copy to the disk as it comes, so that its first checkpoint waits for the rest alone', () =>
  withFolder(async (folder) => {
    const unflushed: number[] = [];
    let written = 0;
    class Counting extends Folder {
      override async open(name: string, how: OpenHow): Promise<StoredFile> {
        const file = await super.open(name, how);
        file.write = async (parts) => void (written += parts.reduce((sum, { length }) => sum + length, 0));
        file.flush = async () => {
          unflushed.push(written);
          written = 0;
        };
        return file;
      }
    }
    const size = 4 * unflushedBytesMax;
    const done = Promise.withResolvers<void>();
    const records = Math.floor((2.5 * unflushedBytesMax) / recordBytesMax);
    const replica = await Replica.begin({
      ...{ folder: new Counting(folder), vm: 'test', term: 1, session: { sizes: [size], durable: true } },
      events: { held: (position) => void (position === records && done.resolve()), failed: done.reject },
    });
    const data = Buffer.alloc(recordBytesMax, 1);
    for (let position = 1; position <= records; position += 1) {
      const offset = (position - 1) * data.length;
      const head = encodeRecordHead({ disk: 0, kind: recordKinds.data, offset, length: data.length, position });
      assert.equal(replica.receive(Buffer.concat([head, data])), undefined);
    }
    await done.promise;
    assert.deepEqual(unflushed, [unflushedBytesMax, unflushedBytesMax]);
    replica.mark({ epoch: 1, position: records });
    await replica.complete(1);
    assert.equal(unflushed.length, 3);
    await replica.close();
  }));

test('only a later term of the same life of the VM may overwrite its newest disks', () =>
  withFolder(async (folder) => {
    const model = await new Model(folder).begin();
    await model.take(1);
    await model.replica.takeOver(3);
    const session = { sizes: [page], durable: false };
    const events = { held: () => undefined, failed: () => undefined };
    const begin = (vm: string, term: number) => Replica.begin({ folder: model.folder, vm, term, session, events });
    await assert.rejects(begin('test', 3), /newest disks/);
    await assert.rejects(begin('test_anotherlife', 9), /newest disks/);
    assert.throws(() => refuseOwner(model.folder), /newest disks/);
    await (await begin('test', 4)).close();
  }));

test('a header that nobody can read may be that of the newest disks: nothing is overwritten, nothing started', () =>
  withFolder(async (folder) => {
    for (const text of ['nonsense', 'nonsense\n\0\0', '{"version":9}\n0000000000000000\n']) {
      writeFileSync(join(folder, headerName), text);
      assert.throws(() => refuseOwner(folder), /damaged, or of another version/);
      assert.throws(() => refuseOwner(folder, { vm: 'test', term: 99 }), /damaged, or of another version/);
    }
    // What a host that ended leaves of a file that was not flushed.
    for (const text of ['', '\0\0\0']) {
      writeFileSync(join(folder, headerName), text);
      refuseOwner(folder);
    }
    rmSync(join(folder, headerName));
    refuseOwner(folder);
    mkdirSync(join(folder, headerName));
    assert.throws(() => refuseOwner(folder), /cannot be read/);
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

const lineage = '0123456789abcdef0123456789abcdef';

/** What differs from the disks of before, as a primary's note names it: in whole blocks, and some more. */
function sendChanged(model: Model, before: readonly Buffer[], most = Number.POSITIVE_INFINITY): void {
  let sent = 0;
  for (const [disk, now] of model.disks.entries())
    for (let at = 0; at < diskBytes; at += page) {
      const data = now.subarray(at, at + page);
      if (data.equals(before[disk]?.subarray(at, at + page) ?? data) || sent >= most) continue;
      sent += 1;
      model.position += 1;
      const head = { disk, kind: recordKinds.data, offset: at, length: page, position: model.position };
      assert.equal(model.replica.receive(Buffer.concat([encodeRecordHead(head), data])), undefined);
    }
}

test('a replica of a known mark needs only what changed since, also when the copy of that was torn', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.record({ first: fc.array(write), late: fc.array(write), alone: fc.array(write) }),
      fc.record({ durable: fc.boolean(), tear: fc.nat(8), killed: fc.boolean() }),
      ({ first, late, alone }, { durable, tear, killed }) =>
        withFolder(async (folder) => {
          const model = await new Model(folder).begin(durable, { lineage });
          assert.equal(model.replica.kept, undefined);
          writeAll(model, first);
          await model.take(1);
          const since = model.position;
          const before = model.marked.get(1) ?? [];
          writeAll(model, late);
          // A process that is killed leaves its journal.
          const left = join(folder, 'left');
          if (killed) cpSync(model.folder, left, { recursive: true });
          await model.replica.close();
          if (killed) {
            rmSync(model.folder, { recursive: true });
            renameSync(left, model.folder);
          }
          const [disk] = model.disks;
          for (const { offset, length, value } of alone)
            disk?.fill(value, offset, Math.min(diskBytes, offset + length));

          await model.begin(durable, { lineage, since, from: model.position + 1 });
          assert.equal(model.replica.kept, since);
          sendChanged(model, before, tear);
          await model.replica.close();

          await model.begin(durable, { lineage, since, from: model.position + 1 });
          assert.equal(model.replica.kept, since);
          sendChanged(model, before);
          await model.take(2);
          assert.deepEqual(model.files(), model.disks);
          assert.deepEqual(await recover(model.folder), { kind: 'epoch', epoch: 2 });
          await model.replica.close();
        }),
    ),
    { numRuns: 40 },
  );
});

test('when anything is in doubt, nothing is kept: all is copied', async () => {
  const offer = { lineage, since: 1, from: 9 };
  const cases: [string, (model: Model) => Promise<void> | void, Partial<Session>][] = [
    ['another run of the VM', () => undefined, { ...offer, lineage: lineage.replace('0', '1') }],
    ['a replica that the note came too late for', () => undefined, { ...offer, since: 2 }],
    ['a replica that is newer than anything the primary knows of', () => undefined, { lineage, since: 0, from: 0 }],
    ['a primary that offers nothing', () => undefined, { lineage, from: 9 }],
    ['another size', () => undefined, { ...offer, sizes: [diskBytes, diskBytes * 2] }],
    [
      'a replica that was in the page cache of another boot',
      async ({ folder }) => {
        const storage = new Folder(folder);
        const header = readHeader(storage);
        assert.ok(header !== undefined);
        await writeHeader(storage, { ...header, boot: 'an earlier one' }, true);
      },
      offer,
    ],
    ['a file that is gone', ({ folder }) => rmSync(replicaPath(folder, 1)), offer],
    ['a replica that is not what was promised', ({ replica }) => verifyWrong(replica), offer],
    ['a node that took over', ({ replica }) => replica.takeOver(0), offer],
  ];
  for (const [what, change, session] of cases)
    await withFolder(async (folder) => {
      const model = await new Model(folder).begin(false, { lineage });
      writeAll(model, [{ disk: 0, offset: 0, length: 9, value: 1 }]);
      await model.take(1);
      await change(model);
      await model.replica.close();
      await model.begin(false, session);
      assert.equal(model.replica.kept, undefined, what);
      await model.replica.close();
    });
});

test('after an apply that failed the journal stays, and makes a whole of the replica', async () => {
  await withFolder(async (folder) => {
    const model = await new Model(folder).begin(false, { lineage });
    model.write(0, 0, 9, 1);
    await model.take(1);
    model.write(0, 4, 9, 2);
    model.mark(2);
    await model.replica.complete(2);
    // As much of an apply as its header.
    const broken = model.replica as unknown as { writeRun: () => Promise<never> };
    broken.writeRun = () => Promise.reject(new Error('the disk is broken'));
    await assert.rejects(model.replica.apply(2), /broken/);
    await model.replica.close();
    assert.deepEqual(await recover(model.folder), { kind: 'epoch', epoch: 2 });
    assert.deepEqual(model.files(), model.marked.get(2));
  });
});

async function verifyWrong(replica: Replica): Promise<void> {
  replica.expectHash({ epoch: 1, disk: 0, hash: 'another' });
  assert.equal(await replica.verify(1, () => Promise.resolve('this')), false);
}
