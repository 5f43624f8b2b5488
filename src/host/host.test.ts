// What src/host promises: missing packages are named exactly, commands are bounded, a lock lets one in at a time.

import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { ColoError } from '../base/errors.ts';
import { kvmKind } from './accelerator.ts';
import { runCommand, tryCommand } from './command.ts';
import { withFileLock } from './file-lock.ts';
import { isKernelAtLeast } from './kernel-features.ts';
import { missingPackages, notInstalled } from './packages.ts';

test('a package that dpkg knows but has not installed is missing', () => {
  const output = 'liblz4-1 installed\nlibc6-dev config-files\n';
  assert.deepEqual(notInstalled(['liblz4-1', 'libc6-dev', 'gcc'], output), ['libc6-dev', 'gcc']);
});

test('a package that does not exist is missing, one that every Debian has is not', async () => {
  assert.deepEqual(await missingPackages(['util-linux']), []);
  assert.deepEqual(await missingPackages([]), []);
});

test('a command that fails is named with what it said last', async () => {
  const failing = runCommand('sh', ['-c', 'echo first >&2; echo last >&2; exit 3']);
  await assert.rejects(failing, (error) => error instanceof ColoError && /exit code 3: last/.test(error.message));
});

test('a command that hangs is killed, one that does not exist is said to be missing', async () => {
  const hung = await tryCommand('sleep', ['60'], { timeoutMs: 50 });
  assert.match(hung.failure ?? '', /did not end within 0\.05 s/);
  assert.match((await tryCommand('no-such-program', [])).failure ?? '', /is not installed/);
});

test('only one holder of a file lock at a time, also after a holder failed', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'colo-lock-'));
  let inside = 0;
  const enter = async (): Promise<void> => {
    inside += 1;
    assert.equal(inside, 1);
    await tryCommand('true', []);
    inside -= 1;
  };
  try {
    const path = join(directory, 'lock');
    const failing = withFileLock(path, () => Promise.reject(new Error('on purpose')));
    await assert.rejects(failing, /on purpose/);
    await Promise.all([1, 2, 3, 4].map(() => withFileLock(path, enter)));
  } finally {
    await rm(directory, { recursive: true });
  }
});

test('kernel releases are compared as numbers', () => {
  assert.equal(isKernelAtLeast('6.18.44-cloud', 6, 7), true);
  assert.equal(isKernelAtLeast('6.7.0', 6, 7), true);
  assert.equal(isKernelAtLeast('6.1.0-56-amd64', 6, 7), false);
  assert.equal(isKernelAtLeast('5.19', 6, 7), false);
});

test('how KVM works on a host is read from its modules', () => {
  const modules = mkdtempSync(join(tmpdir(), 'colo-modules-'));
  try {
    assert.equal(kvmKind(modules), undefined);
    mkdirSync(join(modules, 'kvm_pvm'));
    assert.deepEqual(kvmKind(modules), { module: 'kvm_pvm', hasNestedPaging: false });
    mkdirSync(join(modules, 'kvm_intel', 'parameters'), { recursive: true });
    writeFileSync(join(modules, 'kvm_intel', 'parameters', 'ept'), 'N\n');
    assert.deepEqual(kvmKind(modules), { module: 'kvm_intel', hasNestedPaging: false });
    writeFileSync(join(modules, 'kvm_intel', 'parameters', 'ept'), 'Y\n');
    assert.deepEqual(kvmKind(modules), { module: 'kvm_intel', hasNestedPaging: true });
  } finally {
    rmSync(modules, { recursive: true, force: true });
  }
});
