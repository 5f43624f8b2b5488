// The product's replica on simulated storage, killed at every kind of moment: whatever the end of its process or of its
// host leaves behind is one whole epoch, or says that it is none. Two sessions, one over the other, in one folder.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { encodeRecordHead, recordKinds } from '../src/disk/message.ts';
import { type ReplicaState, recover } from '../src/disk/recovery.ts';
import { Replica } from '../src/disk/replica.ts';
import { SimProcess } from './host/process.ts';
import { SimFolder, SimStorage, sectorBytes } from './host/storage.ts';
import { outside } from './world/outside.ts';
import { Random } from './world/random.ts';
import { Schedule } from './world/schedule.ts';

const sectors = 8;

/** A primary that writes, captures and lets the replica follow, until its node dies. */
class Life {
  readonly folder: SimFolder;
  /** By session and epoch: the disk at that mark. */
  readonly marked = new Map<string, Buffer>();
  session = 0;
  newest = 0;
  private readonly random: Random;
  private readonly durable: boolean;

  constructor(random: Random, durable: boolean) {
    this.random = random;
    this.durable = durable;
    this.folder = new SimFolder('folder', random.fork('folder'));
  }

  async run(process: SimProcess): Promise<void> {
    for (;;) await this.oneSession(new SimStorage(this.folder, process, () => this.random.next()));
  }

  private async oneSession(storage: SimStorage): Promise<void> {
    const { random, durable } = this;
    const disk = Buffer.alloc(sectors * sectorBytes);
    const events = { held: () => undefined, failed: (error: Error) => assert.fail(error) };
    const session = { sizes: [disk.length], durable };
    this.session += 1;
    this.newest = 0;
    const replica = await Replica.begin({ folder: storage, vm: 'vm', term: 1, session, events });
    let position = 0;
    const write = () => {
      const offset = random.below(sectors) * sectorBytes;
      const value = random.below(4) * 60;
      disk.fill(value, offset, offset + sectorBytes);
      position += 1;
      const kind = value === 0 ? recordKinds.zeroes : recordKinds.data;
      const head = encodeRecordHead({ disk: 0, kind, offset, length: sectorBytes, position });
      const data = value === 0 ? Buffer.alloc(0) : Buffer.alloc(sectorBytes, value);
      assert.equal(replica.receive(Buffer.concat([head, data])), undefined);
    };
    const writeSome = () => {
      for (let left = random.below(6); left > 0; left -= 1) write();
    };
    for (let epoch = 1; epoch <= 4; epoch += 1) {
      writeSome();
      assert.equal(replica.mark({ epoch, position }), undefined);
      if (random.chance(0.2)) {
        replica.abort(epoch);
        writeSome();
        assert.equal(replica.mark({ epoch, position }), undefined);
      }
      this.marked.set(`${this.session} ${epoch}`, Buffer.from(disk));
      writeSome();
      await replica.complete(epoch);
      await replica.apply(epoch);
      this.newest = epoch;
    }
    await replica.close();
  }
}

interface End {
  state: ReplicaState | Error;
  life: Life;
  left: SimFolder;
}

function die(seed: number, durable: boolean, death: 'process' | 'host'): End {
  const random = new Random(seed);
  const schedule = new Schedule();
  const process = new SimProcess('node', schedule, { rate: 1, origin: 0 });
  const life = new Life(random.fork('life'), durable);
  const end: End = { state: new Error('it never said'), life, left: life.folder };
  void life.run(process).catch((error: unknown) => assert.fail(String(error)));
  schedule.settle();
  const until = random.between(0, 120);
  while (schedule.step(until));
  process.kill();
  if (death === 'host') life.folder.hostEnded();
  else life.folder.processEnded();
  end.left = life.folder.copy();
  void recover(new SimStorage(end.left)).then(
    (state) => (end.state = state),
    (error: unknown) => (end.state = error instanceof Error ? error : new Error(String(error))),
  );
  schedule.settle();
  return end;
}

for (const [durable, death] of [
  [true, 'process'],
  [false, 'process'],
  [true, 'host'],
  [false, 'host'],
] as const)
  test(`${durable ? 'a durable' : 'an ordinary'} replica whose ${death} ends is one whole epoch, or says that it is none`, async () => {
    const ends = await outside(() => Array.from({ length: 400 }, (_, seed) => die(seed, durable, death)));
    const seen = new Map<string, number>();
    for (const [seed, { state, life, left }] of ends.entries()) {
      assert.ok(!(state instanceof Error), `seed ${seed}: ${String(state)}`);
      seen.set(state.kind, (seen.get(state.kind) ?? 0) + 1);
      if (state.kind !== 'epoch') {
        // What was applied is not forgotten, where that is promised.
        if (durable || death === 'process') assert.ok(life.newest === 0, `seed ${seed}: ${state.kind}`);
        continue;
      }
      assert.ok(durable || death === 'process', `seed ${seed}: nobody can know that`);
      assert.ok(state.epoch >= life.newest, `seed ${seed}: epoch ${state.epoch} after ${life.newest}`);
      const bytes = left.bytes('disk0.raw');
      assert.deepEqual(bytes, life.marked.get(`${life.session} ${state.epoch}`), `seed ${seed}, epoch ${state.epoch}`);
    }
    assert.ok((seen.get(durable || death === 'process' ? 'epoch' : 'unsure') ?? 0) > 20, JSON.stringify([...seen]));
  });
