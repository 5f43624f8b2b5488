// Protected VMs with disks, whole: colod, QEMU, clients. The long repetitions are in test/soak.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { buildDiskGuest } from '../../guest/disk/build.ts';
import { callNode } from '../../src/api/node-client.ts';
import type { NodeStatus } from '../../src/api/node-status.ts';
import { systemClock } from '../../src/base/clock.ts';
import { checkSpec, type SpecInput } from '../../src/config/spec.ts';
import type { BankDemoOptions } from '../../src/demo/bank/stage.ts';
import { runBankDemo } from '../../src/demo/bank/story.ts';
import { consoleSays } from '../../src/demo/console.ts';
import { recover } from '../../src/disk/recovery.ts';
import { ensurePackages, loginTestPackages } from '../../src/host/packages.ts';
import { LocalPair, replicaDirectory } from '../../src/local/pair.ts';

const folder = mkdtempSync(join(tmpdir(), 'colo-disks-'));
after(() => rmSync(folder, { recursive: true }));

async function bank(options: Partial<BankDemoOptions>) {
  return runBankDemo({
    ...{ name: 'test-disk', mode: 'colo', fault: 'primary-kill', failovers: 1, seconds: 8 },
    ...{ verify: false, flush: 'local', seed: 1, reboot: false },
    guest: await buildDiskGuest(),
    clock: systemClock,
    signal: new AbortController().signal,
    say: () => undefined,
    show: () => undefined,
    ...options,
  });
}

test('PostgreSQL keeps every acknowledged transfer when its primary is killed, in memory and on the disk', async () => {
  const report = await bank({ seed: 3, reboot: true });
  assert.deepEqual(report.problems, []);
  assert.ok(report.transfers > 20);
});

test('the same in remus mode, where the secondary stands still, and with a session over SSH that outlives the kill', async () => {
  await ensurePackages(loginTestPackages, { why: 'log in to the guest' });
  const report = await bank({ mode: 'remus', seed: 4, login: true });
  assert.deepEqual(report.problems, []);
  const session = report.clients.find((client) => client.name === 'ssh');
  assert.ok((session?.received ?? 0) >= 2);
});

test('at every commit the replica is the disk of the primary, with writes that wait for the secondary', async () => {
  const report = await bank({ fault: 'none', verify: true, flush: 'replicated', seconds: 14, seed: 5 });
  assert.deepEqual(report.problems, []);
  assert.ok((report.checkpoints?.count ?? 0) >= 1);
});

test('a primary that loses its secondary goes on with its disk', async () => {
  const report = await bank({ fault: 'secondary-kill', seed: 6 });
  assert.deepEqual(report.problems, []);
});

/** 512 bytes that a BIOS starts: they write "B" to the first serial port for ever, slowly. */
function bootSector(): Buffer {
  const sector = Buffer.alloc(512);
  // mov dx,0x3f8; again: mov al,'B'; out dx,al; mov cx,0; wait: in al,0x80; loop wait; jmp again
  Buffer.from([0xba, 0xf8, 0x03, 0xb0, 0x42, 0xee, 0xb9, 0x00, 0x00, 0xe4, 0x80, 0xe2, 0xfc, 0xeb, 0xf4]).copy(sector);
  sector.writeUInt16LE(0xaa55, 510);
  return sector;
}

function biosSpec(name: string, replicaFolder: string) {
  const raw = join(folder, `${name}.raw`);
  const path = join(folder, `${name}.qcow2`);
  writeFileSync(raw, Buffer.concat([bootSector(), Buffer.alloc(4 * 1024 * 1024 - 512)]));
  execFileSync('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', raw, path]);
  const input: SpecInput = {
    vm: name,
    boot: { from: 'disk' },
    machine: { memory: '64M' },
    disks: [
      { path, format: 'qcow2' },
      { path: raw, format: 'raw', flush: 'replicated' },
    ],
    replicaFolder,
  };
  return checkSpec(input, 'the test');
}

const isProtected = (all: NodeStatus[]) => all.some((one) => one.role === 'primary' && one.protected);

test("a user's own image starts by its BIOS and is protected; a replica that cannot be made costs only the protection", async () => {
  const replicaFolder = join(folder, 'replica');
  const spec = biosSpec('disk-bios', replicaFolder);
  // In the way of the replica: a file where its folder should be.
  mkdirSync(replicaFolder);
  writeFileSync(replicaDirectory(spec, 'b'), 'in the way');
  const boot = { kernel: undefined, initrd: undefined, cmdline: '' };
  const pair = await LocalPair.start({ spec, boot, forwards: [], clock: systemClock });
  try {
    await consoleSays(pair.a, { text: 'BBB', path: join(pair.logDir, 'a.serial'), timeoutMs: 120_000 });
    await pair.startSecondary();
    const problems = await pair.until(
      'told what is wrong',
      120_000,
      (all) => all.some((one) => (one.disks?.problem ?? '') !== '') && all.some((one) => one.role === 'primary'),
    );
    assert.match(problems.map((one) => one.disks?.problem).join(), /replica|EEXIST|ENOTDIR/);
    const alone = problems.find((one) => one.role === 'primary');
    assert.equal(alone?.protected, false);
    assert.notEqual(alone?.qemuPid, null);
    rmSync(replicaDirectory(spec, 'b'));
    const healed = await pair.until('protected', 120_000, isProtected);
    assert.equal(healed.find((one) => one.role === 'primary')?.qemuPid, alone?.qemuPid, 'the same VM, never restarted');
    await callNode({ socketPath: pair.a.apiPath, method: 'POST', path: '/checkpoint', timeoutMs: 120_000 });
  } finally {
    await pair.stop();
  }
  const state = await recover(replicaDirectory(spec, 'b'));
  assert.equal(state.kind, 'epoch');
});
