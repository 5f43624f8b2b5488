// A temporary folder is its run's alone, and gone with it or with the next run.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { takeTemporaryFolder } from './temporary.ts';

const prefix = `colo-temporary-test-${process.pid}-`;

const program = `
  const [module, prefix] = process.argv.slice(1);
  const { takeTemporaryFolder } = await import(module);
  console.log(takeTemporaryFolder(prefix).folder);
  setInterval(() => undefined, 1000);`;

test('what a run that was killed has left is removed by the next; what a living one holds stays', async (context) => {
  const module = new URL('temporary.ts', import.meta.url).href;
  const child = spawn(process.execPath, ['--input-type=module', '-e', program, module, prefix]);
  context.after(() => child.kill('SIGKILL'));
  const ended = new Promise((resolve) => void child.once('close', resolve));
  const theirs = await new Promise<string>((resolve) =>
    child.stdout.once('data', (bytes: Buffer) => resolve(String(bytes).trim())),
  );
  writeFileSync(join(theirs, 'disk'), 'an image');
  const first = takeTemporaryFolder(prefix);
  assert.ok(existsSync(join(theirs, 'disk')) && existsSync(first.folder) && first.folder !== theirs);
  child.kill('SIGKILL');
  await ended;
  const second = takeTemporaryFolder(prefix);
  assert.equal(existsSync(theirs), false);
  assert.ok(existsSync(first.folder), 'held by this process, too');
  for (const { folder, release } of [first, second]) {
    release();
    assert.equal(existsSync(folder), false);
  }
});

test('a folder that nobody holds yet, or any more, is not in the way', () => {
  const left = join(tmpdir(), `${prefix}left`);
  mkdirSync(left);
  takeTemporaryFolder(prefix).release();
  assert.equal(existsSync(left), false);
});
