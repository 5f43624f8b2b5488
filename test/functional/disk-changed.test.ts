// Protecting again with a secondary that still has a replica: on a real QEMU, whose dirty bitmaps say what changed, and
// whose monitor writes as a guest's device would, also while the changed blocks are copied.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { systemClock } from '../../src/base/clock.ts';
import { silentLog } from '../../src/base/log.ts';
import { changedBlockBytes } from '../../src/disk/limits.ts';
import { Replica } from '../../src/disk/replica.ts';
import { replicaPath } from '../../src/disk/replica-files.ts';
import { DiskSink } from '../../src/disk/sink.ts';
import { QemuDisks } from '../../src/node/real/disks.ts';
import { vmFiles } from '../../src/qemu/machine.ts';
import { Vm } from '../../src/qemu/vm.ts';
import { io, linkTo, mebibyte, workplace } from './disks.ts';

const sizeBytes = 64 * mebibyte;
const { folder, runFolder, ends, spec } = workplace('changed');

/** One secondary: a session from `from` on, with the replica in this folder. */
async function pairWith(source: QemuDisks, session: { since?: number; from: number; note: string }) {
  const failures: string[] = [];
  const { since, from, note } = session;
  const replica = await Replica.begin({
    folder: join(folder, 'replica'),
    ...{ vm: 'test', term: 1 },
    session: {
      ...{ sizes: [sizeBytes], durable: false, lineage: source.notes.lineage, from },
      ...(since === undefined ? {} : { since }),
    },
    events: { held: (position) => sink.held(position), failed: (error) => void failures.push(error.message) },
  });
  const link = linkTo(replica, failures);
  const sink = new DiskSink(link, { replicated: [false], from });
  const handlers = {
    request: sink.request.bind(sink),
    failed: (why: string) => void failures.push(why),
  };
  const { kept } = replica;
  const mirrors = kept === undefined ? await source.mirror(handlers) : await source.notes.mirrorChanged(note, handlers);
  return { replica, sink, mirrors, failures, sentBytes: () => link.sentBytes };
}

for (const format of ['raw', 'qcow2'] as const)
  test(`a secondary that comes back gets only what changed, and is the disk byte for byte (${format})`, async () => {
    const image = join(folder, `image.${format}`);
    execFileSync('qemu-img', ['create', '-q', '-f', format, image, String(sizeBytes)]);
    const runDir = join(runFolder, format);
    const vm = await Vm.start({
      ...{ spec, paused: false, log: silentLog, clock: systemClock },
      files: { ...vmFiles(runDir, 0), disks: [{ kind: 'image', path: image, format }] },
    });
    ends.push(() => vm.kill());
    const source = new QemuDisks(vm, { runDir, disks: [{ kind: 'image', path: image, format }] });
    const checkpoint = async ({ sink, replica }: Awaited<ReturnType<typeof pairWith>>, epoch: number) => {
      const capture = await vm.capture({ onStopped: () => void sink.mark(epoch) });
      capture.release();
      await replica.complete(epoch);
      await replica.apply(epoch);
    };
    const path = replicaPath(join(folder, 'replica'), 0);
    const isTheDisk = () => execFileSync('qemu-img', ['compare', '-U', '-f', 'raw', '-F', format, path, image]);

    await io(vm, 'write -P 1 0 24M');
    await source.notes.begin('one');
    const first = await pairWith(source, { from: 0, note: 'one' });
    await first.mirrors.copied;
    assert.ok(first.sentBytes() >= 24 * mebibyte);
    await checkpoint(first, 1);
    const since = first.sink.newest;
    isTheDisk();
    // Written, mirrored, and never applied: its block has to come again.
    await io(vm, 'write -P 2 30M 4k');
    first.sink.fail('the secondary is gone');
    await first.mirrors.cancel();
    await first.replica.close();

    // Alone.
    await io(vm, 'write -P 3 5M 64k');
    await io(vm, 'write -z -u 8M 1M');
    await io(vm, 'write -P 4 63M 1M');

    const again = { since, from: first.sink.newest + 1, note: 'one' };
    // Lost in the middle of the copy: it is kept all the same.
    const torn = await pairWith(source, again);
    assert.equal(torn.replica.kept, since);
    torn.sink.fail('the secondary is gone again');
    await torn.mirrors.cancel();
    await torn.replica.close();

    const second = await pairWith(source, { ...again, from: torn.sink.newest + 1 });
    assert.equal(second.replica.kept, since);
    // The guest writes on, over what is being copied and beside it.
    let copied = false;
    const done = second.mirrors.copied.then(() => {
      copied = true;
    });
    // For as long as that takes: on a starved host it is many turns, over the same blocks again.
    let turns = 0;
    for (; turns < 12 || !copied; turns += 1)
      await io(vm, `write -P ${10 + (turns % 200)} ${63 * 1024 + (turns % 40) * 20}k 100k`);
    await done;
    await checkpoint(second, 2);
    assert.deepEqual([...first.failures.slice(1), ...second.failures], []);
    isTheDisk();
    assert.equal(readFileSync(path)[30 * mebibyte], 2);
    assert.ok(second.sentBytes() < 8 * mebibyte + turns * 128 * 1024, `${second.sentBytes()} bytes were sent again`);
    const { doneBytes, totalBytes } = await second.mirrors.progress();
    assert.equal(doneBytes, totalBytes);
    assert.ok(totalBytes >= 2 * mebibyte + 2 * changedBlockBytes && totalBytes < 4 * mebibyte, `${totalBytes}`);
    await second.mirrors.cancel();
    await second.replica.close();
    await source.notes.forget('one');
    rmSync(join(folder, 'replica'), { recursive: true });
  });
