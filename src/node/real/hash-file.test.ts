// A disk is as large as QEMU makes it, whatever the file says.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { hashFile } from './hash-file.ts';

test('an image whose size is no multiple of 512 has the hash of its replica, which is', async (context) => {
  const folder = mkdtempSync(join(tmpdir(), 'colo-hash-'));
  context.after(() => rmSync(folder, { recursive: true }));
  const [image, replica, other] = ['image', 'replica', 'other'].map((name) => join(folder, name));
  assert.ok(image !== undefined && replica !== undefined && other !== undefined);
  const bytes = Buffer.alloc(1_048_876, 7);
  const diskBytes = 1_049_088;
  writeFileSync(image, bytes);
  writeFileSync(replica, Buffer.concat([bytes, Buffer.alloc(diskBytes - bytes.length)]));
  writeFileSync(other, Buffer.concat([bytes, Buffer.alloc(diskBytes - bytes.length, 1)]));
  assert.equal(await hashFile(image, diskBytes), await hashFile(replica, diskBytes));
  assert.notEqual(await hashFile(other, diskBytes), await hashFile(replica, diskBytes));
});
