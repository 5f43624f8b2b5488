// What is refused of an image before a guest starts from it, and with which words.

import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { checkImage } from './disk-image.ts';

const folder = mkdtempSync(join(tmpdir(), 'colo-image-'));
after(() => rmSync(folder, { recursive: true }));

test('what is wrong with an image is said in one line', async () => {
  const qcow2 = join(folder, 'disk.qcow2');
  execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', qcow2, '1M']);
  await checkImage(qcow2, 'qcow2');
  await assert.rejects(checkImage(qcow2, 'raw'), /is a qcow2 image, not a raw one/);
  await assert.rejects(checkImage(join(folder, 'none'), 'raw'), /is not there/);
  await assert.rejects(checkImage(folder, 'raw'), /is no file/);
  const raw = join(folder, 'disk.raw');
  writeFileSync(raw, '');
  await assert.rejects(checkImage(raw, 'raw'), /is empty/);
  truncateSync(raw, 1024 * 1024);
  await checkImage(raw, 'raw');
  await assert.rejects(checkImage(raw, 'qcow2'), /is no qcow2 image/);
});

test('an image that another QEMU writes to is refused', async () => {
  const image = join(folder, 'busy.qcow2');
  execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', image, '1M']);
  const other = spawn('qemu-io', ['-f', 'qcow2', image], { stdio: ['pipe', 'pipe', 'inherit'] });
  const closed = new Promise((resolve) => void other.once('close', resolve));
  try {
    // It has the image open when it prompts for a command.
    await new Promise((resolve) => void other.stdout.once('data', resolve));
    await assert.rejects(checkImage(image, 'qcow2'), /is in use/);
  } finally {
    other.kill();
    await closed;
  }
});
