// One process at a time holds an owner file.

import assert from 'node:assert/strict';
import { closeSync, existsSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { tryLock } from './descriptors.ts';
import { livingOwner, takeFile } from './owner-file.ts';
import { processIdentity } from './processes.ts';

function place(context: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'colo-owner-'));
  context.after(() => rmSync(folder, { recursive: true }));
  return join(folder, 'owner');
}

test('the file of a dead process is taken by one, and the next is told who has it', (context) => {
  const path = place(context);
  writeFileSync(path, '1 999999999999 and more');
  const first = takeFile(path);
  assert.ok('release' in first);
  assert.equal(readFileSync(path, 'utf8'), processIdentity(process.pid));
  assert.deepEqual(takeFile(path), { pid: process.pid });
  assert.equal(livingOwner(path), process.pid);
  first.release();
  assert.equal(existsSync(path), false);
  const again = takeFile(path);
  assert.ok('release' in again);
  again.release();
});

test('a file whose process has not written its name yet is held', (context) => {
  const path = place(context);
  const fd = openSync(path, 'w');
  assert.equal(tryLock(fd), true);
  assert.deepEqual(takeFile(path), { pid: 0 });
  assert.equal(existsSync(path), true, 'nobody removes it');
  closeSync(fd);
  const taken = takeFile(path);
  assert.ok('release' in taken);
  taken.release();
});

test('a living process that wrote its name without a lock has it', (context) => {
  const path = place(context);
  writeFileSync(path, processIdentity(process.ppid) ?? '');
  assert.deepEqual(takeFile(path), { pid: process.ppid });
});
