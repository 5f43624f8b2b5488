// The stores in memory and in a folder; that on etcd is tested in test/failover/etcd.test.ts.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { systemClock } from '../base/clock.ts';
import { ColoError } from '../base/errors.ts';
import { FolderStore } from './folder-store.ts';
import { MemoryStore, newShared } from './memory-store.ts';
import { Registry } from './registry.ts';
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

test('folder: a damaged entry is named and never guessed at; all others are read and changed', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'colo-registry-'));
  const store = new FolderStore(folder, Date.now);
  await store.change('vms/web', 0, 'one');
  await store.change('drains/h1', 0, '{}');
  writeFileSync(join(folder, 'vms~web.json'), '{"val');
  const entries = new Map((await store.list()).map(({ key, value, revision }) => [key, { value, revision }]));
  assert.deepEqual(entries.get('vms/web'), { value: '', revision: 0 });
  assert.equal(entries.get('drains/h1')?.value, '{}');
  const view = await new Registry(store).read();
  assert.deepEqual(view.problems, ['the entry vms/web is damaged, or of another version']);
  assert.deepEqual([...view.drains.keys()], ['h1']);
  const damaged = (error: unknown) => error instanceof ColoError && /vms~web\.json is damaged/.test(error.message);
  await assert.rejects(store.change('vms/web', 0, 'two'), damaged);
  assert.equal(await store.change('vms/other', 0, 'two'), true);
  rmSync(folder, { recursive: true });
});
