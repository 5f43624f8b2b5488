// A file system of a node is full. The one that holds guest RAM: too small for a secondary, filled up while it
// protects, still full when it takes over, and when it is to be protected in turn. The one of logs and consoles: on
// both nodes at once. The guest goes on throughout, what is missing is said, and with room all is as before. Needs
// root, for a file system of a size of its own.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { closeSync, mkdirSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { NodeStatus } from '../../src/api/node-status.ts';
import { logDirectory, runDirectory } from '../../src/local/directories.ts';
import { takeRoom } from '../../src/qemu/libc.ts';
import {
  checkpoint,
  expectClients,
  expectOneVoice,
  handOver,
  roles,
  served,
  setStage,
  strike,
  survives,
} from './stage.ts';
import { empty, fill, unmount } from './volume.ts';

const skip = process.getuid?.() === 0 ? {} : { skip: 'needs root' };
const vm = 'memory-full';
const fillerBytes = 1 << 20;

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
    const folder = join(runDirectory(vm), 'b', 'vm');
    unmount(folder);
    const stage = await setStage({ vm, protect: { mode: 'colo' } });
    const isTold = (why: RegExp, role: string) =>
      stage.pair.until(`told ${why}`, 120_000, (all) => all.some((one) => one.role === role && why.test(one.why)));
    mkdirSync(folder, { recursive: true });
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=100M', 'colo-full', folder]);
    try {
      await stage.pair.startSecondary();
      await isTold(/\d+ MiB free, 288 needed/, 'secondary');
      await isTold(/^b was lost: it says: .*288 needed/, 'primary');
      await served(stage, 20);
      execFileSync('mount', ['-o', 'remount,size=300M', folder]);
      await roles(stage);
      fill(folder);
      await expectNoRoom(folder);
      await served(stage, 20);
      await checkpoint(stage);
      // A starved host may have turned them round: b is to be the one that has no room when it takes over.
      while ((await roles(stage)).primary !== 'a') await handOver(stage);
      const { survivor } = await strike(stage, 'primary-kill');
      assert.equal(survivor, 'b');
      await survives(stage, 'b');
      await served(stage, 20);
      // What it had as a secondary goes, and leaves room.
      fill(folder);
      await stage.pair.restart('a');
      const why = /^a was lost: no checkpoint could be made/;
      await stage.pair.until(`told ${why}`, 120_000, (all) => {
        fill(folder);
        return all.some((one) => one.role === 'primary' && why.test(one.why));
      });
      await served(stage, 20);
      empty(folder);
      await roles(stage);
      await expectClients(stage);
      expectOneVoice(stage);
    } finally {
      // Nodes that still run use it until they end.
      unmount(folder);
      await stage.close();
    }
  },
);

test(
  'a file system of logs and consoles that is full costs lines, which are told, and no node and no failover',
  skip,
  async () => {
    const name = 'logs-full';
    const folder = logDirectory(name);
    unmount(folder);
    mkdirSync(folder, { recursive: true });
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=8M', 'colo-full', folder]);
    try {
      const stage = await setStage({ vm: name, protect: { mode: 'colo' } });
      try {
        await stage.pair.startSecondary();
        await roles(stage);
        fill(folder);
        await checkpoint(stage);
        await served(stage, 20);
        const losses = (all: NodeStatus[]) =>
          all.flatMap(({ process: own }) => own?.losses ?? []).filter(({ problem }) => problem.includes('ENOSPC'));
        await stage.pair.until('told what is lost', 120_000, (all) => losses(all).length > 0);
        const { survivor, struck } = await strike(stage, 'primary-kill');
        await survives(stage, survivor);
        await served(stage, 20);
        await stage.pair.restart(struck);
        await roles(stage);
        empty(folder);
        await checkpoint(stage);
        await stage.pair.until('nothing is lost any more', 120_000, (all) => losses(all).length === 0);
        assert.match(readFileSync(join(folder, `${survivor}.log`), 'utf8'), /"msg":"lines are lost"/);
        await expectClients(stage);
        expectOneVoice(stage);
      } finally {
        await stage.close();
      }
    } finally {
      unmount(folder);
    }
  },
);
