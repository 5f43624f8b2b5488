// Before a host is shut down: every child is told, who has handed its VM over ends, and who has the only copy is named.

import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { systemClock } from '../base/clock.ts';
import { processIdentity } from '../base/processes.ts';
import type { ServiceConfig } from './config.ts';
import { handOverAll } from './hand-over.ts';

const obedient = "process.on('SIGTERM', () => process.exit(0));";
const faithful = "process.on('SIGTERM', () => console.log('told'));";

/** Stands in for a child of the service: all that matters is what it does when it is told. */
async function child(runFolder: string, vm: string, does: string): Promise<ChildProcess> {
  const process_ = spawn(process.execPath, ['-e', `${does} setInterval(() => 0, 1000); console.log('ready');`]);
  await once(process_.stdout, 'data');
  const folder = join(runFolder, 'vms', vm);
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, 'identity'), processIdentity(process_.pid ?? 0) ?? '');
  return process_;
}

test('every child of a host that is shut down is told, and those that keep the only copy of a VM are named', async (context) => {
  const runFolder = mkdtempSync(join(tmpdir(), 'colo-hand-over-'));
  const children = [
    await child(runFolder, 'web', obedient),
    await child(runFolder, 'db', faithful),
    await child(runFolder, 'mail', obedient),
  ];
  context.after(() => {
    for (const one of children) one.kill('SIGKILL');
    rmSync(runFolder, { recursive: true });
  });
  mkdirSync(join(runFolder, 'vms', 'none'));
  const told = once(children[1]?.stdout ?? assert.fail(), 'data');
  const config = { runFolder, stateFolder: runFolder } as ServiceConfig;
  // Time enough for those that end; the one that does not is not waited for any longer.
  const ended = Promise.all([children[0], children[2]].map((one) => once(one ?? assert.fail(), 'exit')));
  const late = ended.then(() => told);
  const clock = { ...systemClock, now: () => (isLate ? 2 : 0) };
  let isLate = false;
  void late.then(() => {
    isLate = true;
  });
  assert.deepEqual(await handOverAll(config, { waitMs: 1, clock }), ['db']);
  await late;
});

test('a host without VMs has nothing to hand over', async () => {
  const config = { runFolder: join(tmpdir(), 'colo-no-such-folder'), stateFolder: '' } as ServiceConfig;
  assert.deepEqual(await handOverAll(config, { waitMs: 1, clock: systemClock }), []);
});
