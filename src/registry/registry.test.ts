// The registry's entries: what is read back, and what is left out.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MemoryStore, newShared } from './memory-store.ts';
import { Registry, type VmRecord } from './registry.ts';

const clock = { now: () => 0 };
const record: VmRecord = {
  vm: 'web',
  life: '0123abcd',
  home: 'h1',
  spec: { vm: 'web', boot: { guest: 'demo' } },
  memoryBytes: 1,
  protect: true,
};

test('a VM is created once, is placed from the newest placement only, and is removed from the newest record only', async () => {
  const registry = new Registry(new MemoryStore(newShared(), clock));
  assert.equal(await registry.createVm(record), true);
  assert.equal(await registry.createVm({ ...record, life: '99999999' }), false);
  const placement = { life: record.life, nodes: ['h1'], revision: 0 };
  assert.equal(await registry.place('web', placement), true);
  assert.equal(await registry.place('web', { ...placement, nodes: ['h2'] }), false);
  const view = await registry.read();
  const [vm] = view.vms;
  const placed = view.placements.get('web');
  assert.ok(vm !== undefined && placed !== undefined);
  assert.deepEqual(vm, { ...record, revision: vm.revision });
  assert.deepEqual(placed.nodes, ['h1']);
  assert.equal(await registry.removeVm({ ...vm, revision: vm.revision + 100 }, placed), false);
  assert.equal(await registry.removeVm(vm, placed), true);
  const after = await registry.read();
  assert.deepEqual([after.vms.length, after.placements.size], [0, 0]);
  const left = after.removed.get('web');
  assert.equal(left?.life, record.life);
  assert.equal(await registry.createVm({ ...record, life: '99999999' }), false, 'what is left of it is known');
  assert.equal(await registry.createVm({ ...record, life: '99999999' }, left.revision), true);
  assert.equal((await registry.read()).removed.size, 0);
});

test('entries that cannot be read are left out and named, and the others are read', async () => {
  const store = new MemoryStore(newShared(), clock);
  const registry = new Registry(store);
  await registry.createVm(record);
  await store.change('vms/broken', 0, '{"vm":');
  await store.change('nodes/other', 0, '{"node":"other"}');
  await store.change('later/version', 0, 'x');
  const view = await registry.read();
  assert.deepEqual(
    view.vms.map((one) => one.vm),
    ['web'],
  );
  assert.deepEqual(view.nodes, []);
  assert.equal(view.problems.length, 2);
});

test('a node is drained until it is not, however often that is said', async () => {
  const registry = new Registry(new MemoryStore(newShared(), clock));
  await registry.drain('h1');
  await registry.drain('h1');
  const { drains } = await registry.read();
  assert.deepEqual([...drains.keys()], ['h1']);
  await registry.undrain('h1', drains.get('h1') ?? 0);
  assert.equal((await registry.read()).drains.size, 0);
});
