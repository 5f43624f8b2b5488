// The file system that holds a node's guest RAM is full: too small for a secondary, filled up while it protects, still full
// when it takes over, and when it is to be protected in turn. The guest goes on throughout, what is missing is said, and
// with room the VM is protected. Needs root, for a file system of a size of its own.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { closeSync, mkdirSync, openSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { inject } from '../../src/demo/faults.ts';
import { runDirectory } from '../../src/local/directories.ts';
import { takeRoom } from '../../src/qemu/libc.ts';
import { served, setStage, survives, voices } from './stage.ts';

const skip = process.getuid?.() === 0 ? {} : { skip: 'needs root' };
const vm = 'memory-full';
const fillerBytes = 1 << 20;

/** Writes until there is no room. */
function fill(folder: string): void {
  const bytes = Buffer.alloc(fillerBytes, 1);
  for (let count = 0; ; count += 1)
    try {
      writeFileSync(join(folder, `filler${count}`), bytes);
    } catch (error) {
      assert.equal((error as NodeJS.ErrnoException).code, 'ENOSPC');
      return;
    }
}

function empty(folder: string): void {
  for (const name of readdirSync(folder)) if (name.startsWith('filler')) rmSync(join(folder, name));
}

/** Room that is not there is refused when it is asked for, and not when it is used. */
async function expectNoRoom(folder: string): Promise<void> {
  const file = openSync(join(folder, 'filler'), 'w');
  try {
    await assert.rejects(takeRoom(file, 8 * fillerBytes), { code: 'COLO_E_HOST', message: /no room/ });
  } finally {
    closeSync(file);
  }
}

test(
  'a file system of guest RAM that is full costs the protection, says so, and never a guest that runs',
  skip,
  async () => {
    const stage = await setStage({ vm, protect: { mode: 'colo' } });
    const isProtected = () =>
      stage.pair.until('protected', 60_000, (all) => all.some((one) => one.role === 'primary' && one.protected));
    const isTold = (why: RegExp, role: string) =>
      stage.pair.until(`told ${why}`, 60_000, (all) => all.some((one) => one.role === role && why.test(one.why)));
    const folder = join(runDirectory(vm), 'b', 'vm');
    mkdirSync(folder, { recursive: true });
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=100M', 'colo-full', folder]);
    try {
      await stage.pair.startSecondary();
      await isTold(/\d+ MiB free, 288 needed/, 'secondary');
      await isTold(/^b was lost: it says: .*288 needed/, 'primary');
      await served(stage, 20);
      execFileSync('mount', ['-o', 'remount,size=300M', folder]);
      await isProtected();
      fill(folder);
      await expectNoRoom(folder);
      await served(stage, 20);
      await stage.checkpoint();
      await inject('primary-kill', stage.pair, () => 0);
      await survives(stage, 'b');
      await served(stage, 20);
      // What it had as a secondary is gone, and has left room.
      fill(folder);
      await stage.pair.restart('a');
      await isTold(/^a was lost: no checkpoint could be made/, 'primary');
      await served(stage, 20);
      empty(folder);
      await isProtected();
      for (const report of await stage.finish()) assert.equal(report.ok, true, `${report.name}: ${report.detail}`);
      assert.equal(voices(stage).length, 2);
    } finally {
      // Nodes that still run use it until they end.
      execFileSync('umount', ['-l', folder]);
      await stage.close();
    }
  },
);
