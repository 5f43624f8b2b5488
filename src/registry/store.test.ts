// The stores in memory and in a folder; that on etcd is tested in test/failover/etcd.test.ts.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { systemClock } from '../base/clock.ts';
import { ColoError, errorCodes } from '../base/errors.ts';
import { FolderStore } from './folder-store.ts';
import { MemoryStore, newShared } from './memory-store.ts';
import { storeConformance } from './store.conformance.ts';

storeConformance('memory', async () => {
  const shared = newShared();
  return { open: async () => new MemoryStore(shared, systemClock), end: async () => undefined };
});

storeConformance('folder', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'colo-registry-'));
  return {
    open: async () => new FolderStore(folder, Date.now),
    end: async () => rmSync(folder, { recursive: true }),
  };
});

test('folder: a damaged entry is an error that names its file, never a guess', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'colo-registry-'));
  const store = new FolderStore(folder, Date.now);
  await store.change('vms/web', 0, 'one');
  writeFileSync(join(folder, 'vms~web.json'), '{"val');
  const damaged = (error: unknown) => error instanceof ColoError && error.code === errorCodes.arbiter;
  await assert.rejects(store.list(), damaged);
  await assert.rejects(store.change('vms/web', 0, 'two'), damaged);
  rmSync(folder, { recursive: true });
});
