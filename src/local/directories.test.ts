// Runs of several VMs begin and end at the same time, and none of them takes another one's folder away.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { test } from 'node:test';
import { runDirectory } from './directories.ts';

const rounds = 60;

/** Takes and releases the folder of one VM again and again; a process of its own, as each run is one. */
const program = `
  import { existsSync } from 'node:fs';
  import { join } from 'node:path';
  const [module, vm] = process.argv.slice(1);
  const { releaseRunDirectory, takeRunDirectory } = await import(module);
  for (let round = 0; round < ${rounds}; round += 1) {
    const directory = takeRunDirectory(vm);
    for (let look = 0; look < 3; look += 1)
      if (!existsSync(join(directory, 'owner'))) throw new Error('it was taken away in round ' + round);
    releaseRunDirectory(directory);
  }`;

test('runs that begin and end at the same time do not take their folders away from each other', async (context) => {
  const module = new URL('directories.ts', import.meta.url).href;
  const vms = ['one', 'two', 'three', 'four'].map((name) => `directories-${process.pid}-${name}`);
  const ends = vms.map(async (vm) => {
    const child = spawn(process.execPath, ['--input-type=module', '-e', program, module, vm]);
    context.after(() => child.kill('SIGKILL'));
    let said = '';
    child.stderr.on('data', (bytes: Buffer) => {
      said += bytes.toString();
    });
    const code = await new Promise((resolve) => void child.once('close', resolve));
    assert.equal(code, 0, said);
  });
  await Promise.all(ends);
  for (const vm of vms) assert.equal(existsSync(runDirectory(vm)), false);
});
