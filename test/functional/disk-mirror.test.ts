// Disks between two real QEMUs, without a guest: the monitor's own qemu-io command writes as a guest's device would.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, readFileSync, statSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { systemClock } from '../../src/base/clock.ts';
import { silentLog } from '../../src/base/log.ts';
import { BareVm } from '../../src/demo/bare-vm.ts';
import { Replica } from '../../src/disk/replica.ts';
import { overlayPath, replicaPath } from '../../src/disk/replica-files.ts';
import { DiskSink } from '../../src/disk/sink.ts';
import { NbdServer } from '../../src/nbd/server.ts';
import { type DiskFiles, diskNode, replicaNode, vmFiles } from '../../src/qemu/machine.ts';
import { diskSizes, foldOverlay, Mirror } from '../../src/qemu/mirror.ts';
import { Vm } from '../../src/qemu/vm.ts';
import { io, linkTo, mebibyte, workplace } from './disks.ts';

const sizeBytes = 32 * mebibyte;
const { folder, runFolder, ends, spec } = workplace('disk');

async function start(name: string, disks: DiskFiles[], template?: Uint8Array): Promise<Vm> {
  const vm = await Vm.start({
    spec,
    files: { ...vmFiles(join(runFolder, name), 0), disks },
    paused: true,
    log: silentLog,
    clock: systemClock,
    ...(template === undefined ? {} : { vmstateTemplate: template }),
  });
  ends.push(() => vm.kill());
  return vm;
}

test('what the primary writes reaches the replica with its checkpoint, and not before; a takeover keeps the rest', async () => {
  const image = join(folder, 'image.qcow2');
  execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', image, String(sizeBytes)]);
  const primary = await start('primary', [{ kind: 'image', path: image, format: 'qcow2' }]);
  assert.deepEqual(await diskSizes(primary.qmp, [diskNode(0)]), [sizeBytes]);
  const template = await primary.makeTemplate();
  await io(primary, 'write -P 1 0 1M');
  await io(primary, 'write -P 2 20M 64k');

  const failures: string[] = [];
  const replicaFolder = join(folder, 'replica');
  const replica = await Replica.begin({
    folder: replicaFolder,
    vm: 'test',
    term: 1,
    session: { sizes: [sizeBytes], durable: false },
    events: { held: (position) => sink.held(position), failed: (error) => void failures.push(error.message) },
  });
  const sink = new DiskSink(linkTo(replica, failures), { replicated: [false] });
  const socketPath = join(runFolder, 'sink.sock');
  const server = await NbdServer.listen({
    path: socketPath,
    exports: [{ name: 'disk0', sizeBytes, readOnly: false, flush: false }],
    handle: (request, answer) => sink.request(0, request, answer),
  });
  ends.push(() => server.close());
  const at = { vm: primary, node: diskNode(0), name: 'disk0', socketPath, exportName: 'disk0' };
  const mirror = await Mirror.start({ ...at, failed: (why) => void failures.push(why) });
  await mirror.copied;
  const files = { overlayPath: overlayPath(replicaFolder, 0), replicaPath: replicaPath(replicaFolder, 0) };
  const secondary = await start('secondary', [{ kind: 'overlay', ...files }], template);

  const byteAt = (offset: number) => readFileSync(files.replicaPath)[offset];
  const checkpoint = async (epoch: number) => {
    let ram = Buffer.alloc(0);
    const capture = await primary.capture({
      onStopped: () => void sink.mark(epoch),
      beforeResume: () => {
        ram = Buffer.from(primary.ram);
      },
    });
    await replica.complete(epoch);
    await secondary.stop();
    ram.copy(secondary.ram);
    await replica.apply(epoch);
    await secondary.load(capture.deviceState);
    capture.release();
  };
  await checkpoint(1);
  assert.deepEqual(failures, []);
  assert.equal(byteAt(5), 1);
  assert.equal(byteAt(20 * mebibyte), 2);
  assert.ok(statSync(files.replicaPath).blocks * 512 < 8 * mebibyte, 'empty regions stay holes');

  await io(primary, 'write -P 3 4k 4k');
  await io(primary, 'write -z -u 20M 64k');
  await io(secondary, 'write -P 9 0 64k');
  await io(secondary, 'read -P 9 0 64k');
  assert.equal(byteAt(4096), 1, 'nothing reaches the replica before its checkpoint');
  await checkpoint(2);
  assert.equal(byteAt(4096), 3);
  assert.equal(byteAt(20 * mebibyte), 0);
  await io(secondary, 'read -P 1 0 4k');
  await io(secondary, 'read -P 3 4k 4k');
  await io(secondary, 'read -P 1 8k 56k');

  // The unfinished epoch: the primary writes on and is lost; the secondary goes on with its own writes.
  await io(primary, 'write -P 4 0 64k');
  await io(secondary, 'write -P 5 1M 64k');
  await replica.takeOver(2);
  await secondary.keepDisks();
  await secondary.resume();
  await foldOverlay({ qmp: secondary.qmp, top: diskNode(0), base: replicaNode(0), progress: () => undefined });
  await io(secondary, 'write -P 6 2M 4k');
  await io(secondary, 'flush');
  assert.equal(byteAt(0), 1, "what the primary's unfinished epoch wrote never happened");
  assert.equal(byteAt(mebibyte), 5, "the survivor's own writes are in the image");
  assert.equal(byteAt(2 * mebibyte), 6, 'and it goes on there');

  await mirror.cancel();
  await io(primary, 'write -P 7 0 4k');
  assert.deepEqual(failures, []);
});

test('when the secondary is lost the disk goes on, and the mirror can be begun again when it has been cancelled', async () => {
  const image = join(folder, 'alone.raw');
  closeSync(openSync(image, 'w'));
  truncateSync(image, sizeBytes);
  const vm = await start('alone', [{ kind: 'image', path: image, format: 'raw' }]);
  const sink = new DiskSink({ send: () => undefined, drain: () => Promise.resolve() }, { replicated: [false] });
  const socketPath = join(runFolder, 'alone.sock');
  const server = await NbdServer.listen({
    path: socketPath,
    exports: [{ name: 'disk0', sizeBytes, readOnly: false, flush: false }],
    handle: (request, answer) => sink.request(0, request, answer),
  });
  ends.push(() => server.close());
  const failures: string[] = [];
  const at = { vm, node: diskNode(0), name: 'disk0', socketPath, exportName: 'disk0' };
  const mirror = await Mirror.start({ ...at, failed: (why) => void failures.push(why) });
  await mirror.copied;
  sink.fail('the secondary is gone');
  await io(vm, 'write -P 1 0 4k');
  await mirror.cancel();
  assert.deepEqual(failures, []);
  await io(vm, 'read -P 1 0 4k');
  const again = await Mirror.start({ ...at, failed: () => undefined }).catch((error: unknown) => error);
  assert.ok(again instanceof Mirror, 'the mirror can be begun again');
  await again.cancel();
});

test('a mirror is cancelled with writes of the guest on their way, again and again, and QEMU and the guest go on', async () => {
  const image = join(folder, 'busy.raw');
  closeSync(openSync(image, 'w'));
  truncateSync(image, 8 * mebibyte);
  const disks = [{ kind: 'image' as const, path: image, format: 'raw' as const }];
  const guest = await BareVm.start({
    machine: 'microvm',
    accel: 'tcg',
    dir: mkdtempSync(join(runFolder, 'busy-')),
    disks,
  });
  ends.push(() => guest.close());
  const { vm, control } = guest;
  await guest.ready();
  for (let round = 0; round < 20; round += 1) {
    const sink = new DiskSink({ send: () => undefined, drain: () => Promise.resolve() }, { replicated: [true] });
    const asked = Promise.withResolvers<void>();
    const socketPath = join(runFolder, `busy${round}.sock`);
    let isCopied = false;
    const server = await NbdServer.listen({
      path: socketPath,
      exports: [{ name: 'disk0', sizeBytes: 8 * mebibyte, readOnly: false, flush: false }],
      handle: (request, answer) => {
        sink.request(0, request, answer);
        if (isCopied) asked.resolve();
        else sink.held(sink.newest);
      },
    });
    const at = { vm, node: diskNode(0), name: 'disk0', socketPath, exportName: 'disk0' };
    const mirror = await Mirror.start({ ...at, onlyNew: round % 2 === 1, failed: () => undefined });
    await mirror.copied;
    isCopied = true;
    await asked.promise;
    sink.fail('the secondary is gone');
    await mirror.cancel();
    await server.close();
    const wanted = control.get('disk_writes') + 4n;
    await guest.until('it writes on', () => control.get('disk_writes') >= wanted);
  }
  assert.equal(control.get('disk_errors'), 0n);
});
