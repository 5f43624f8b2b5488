// The machine of a spec: what of its disks is copied, and what its kernel is told.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { checkSpec, writtenDisks } from '../config/spec.ts';
import { tscKhz } from '../host/processor.ts';
import type { NodeConfig } from '../node/config.ts';
import { machineHash } from '../node/pairing/machine-hash.ts';
import { addedWords, machineOf } from './machine.ts';

const disk = { kernel: undefined, initrd: undefined, cmdline: '' };

function seed(context: TestContext, text: string): string {
  const folder = mkdtempSync(join(tmpdir(), 'colo-machine-'));
  context.after(() => rmSync(folder, { recursive: true }));
  const path = join(folder, 'seed.iso');
  writeFileSync(path, text);
  return path;
}

function specWith(seedPath: string) {
  const disks = [
    { path: seedPath, format: 'raw', cdrom: true },
    { path: '/root.qcow2', format: 'qcow2', bus: 'scsi' },
    { path: '/data', format: 'raw' },
  ];
  return checkSpec({ vm: 'a', boot: { from: 'disk', order: [1, 0] }, disks }, 'test');
}

test('a disk that is only read is a medium of the machine, and none that is copied', (context) => {
  const spec = specWith(seed(context, 'user-data'));
  assert.deepEqual(
    writtenDisks(spec).map(({ path }) => path),
    ['/root.qcow2', '/data'],
  );
  const { disks, media } = machineOf(spec, disk, '/log');
  assert.deepEqual(disks, [{ bus: 'scsi', bootIndex: 0 }, { bus: 'virtio' }]);
  assert.deepEqual(
    media?.map(({ bus, cdrom, bootIndex }) => [bus, cdrom, bootIndex]),
    [['sata', true, 1]],
  );
});

test('two nodes with other contents under the same path have another machine', (context) => {
  const hashOf = (text: string) => {
    const machine = machineOf(specWith(seed(context, text)), disk, '/log');
    return machineHash({ machine, protect: { mode: 'colo' } } as NodeConfig);
  };
  assert.equal(hashOf('user-data'), hashOf('user-data'));
  assert.notEqual(hashOf('user-data'), hashOf('other-data'));
});

test('a spec without any of this is the machine that it was', () => {
  const disks = [{ path: '/root.qcow2', format: 'qcow2' }];
  const machine = machineOf(checkSpec({ vm: 'a', boot: { from: 'disk' }, disks }, 'test'), disk, '/log');
  for (const key of ['disks', 'media', 'firmware', 'display']) assert.ok(!(key in machine), key);
  assert.deepEqual(machine.nics, [{ mac: '52:54:00:12:34:56' }]);
});

test('the kernel is told the clock rate, unless the spec says no or says it itself', () => {
  const wordsOf = (boot: Record<string, unknown>, cmdline = '') =>
    addedWords(checkSpec({ vm: 'a', boot: { kernel: '/k', cmdline, ...boot } }, 'test'), { kernel: '/k', cmdline });
  assert.deepEqual(wordsOf({}), tscKhz() === undefined ? [] : [`tsc_early_khz=${tscKhz()}`]);
  assert.deepEqual(wordsOf({ clockRate: false }), []);
  assert.deepEqual(wordsOf({}, 'tsc_early_khz=1'), []);
});
