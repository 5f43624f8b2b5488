// The registry's entries: what is read back, and what is left out.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ColoError, errorCodes } from '../base/errors.ts';
import { listingBytesMax } from './limits.ts';
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
  const remains = { placement: placed, nodes: ['h1', 'h2'], addresses: ['192.0.2.7'] };
  assert.equal(await registry.removeVm({ ...vm, revision: vm.revision + 100 }, remains), false);
  assert.equal(await registry.removeVm(vm, remains), true);
  const after = await registry.read();
  assert.deepEqual([after.vms.length, after.placements.size], [0, 0]);
  const left = after.removed.get('web');
  assert.equal(left?.life, record.life);
  assert.equal(await registry.createVm({ ...record, life: '99999999' }), false, 'what is left of it is known');
  assert.equal(await registry.createVm({ ...record, life: '99999999' }, left.revision), true);
  assert.equal((await registry.read()).removed.size, 0);
});

test('what is left of a removed VM names the nodes that may run it, and is gone after the last of them', async () => {
  const registry = new Registry(new MemoryStore(newShared(), clock));
  await registry.createVm(record);
  const [vm] = (await registry.read()).vms;
  assert.ok(vm !== undefined);
  await registry.removeVm(vm, { placement: undefined, nodes: ['h1', 'h2'], addresses: ['192.0.2.7'] });
  const left = async () => (await registry.read()).removed.get('web') ?? assert.fail('nothing is left');
  const first = await left();
  assert.deepEqual([first.life, first.nodes, first.addresses], [record.life, ['h1', 'h2'], ['192.0.2.7']]);
  assert.equal(await registry.strike(first, 'h1'), true);
  assert.equal(await registry.strike(first, 'h2'), false, 'it was changed meanwhile');
  const second = await left();
  assert.deepEqual([second.life, second.nodes, second.addresses], [record.life, ['h2'], ['192.0.2.7']]);
  assert.equal(await registry.strike(second, 'h2'), true);
  const after = await registry.read();
  assert.deepEqual([after.removed.size, after.vms.length, after.problems], [0, 0, []]);
  assert.equal(await registry.createVm({ ...record, life: '99999999' }), true);
});

test('a registry that is half full takes no further VM, and what is there can be removed', async () => {
  const registry = new Registry(new MemoryStore(newShared(), clock));
  const of = (index: number) => ({ ...record, vm: `vm${index}`, spec: { fill: 'x'.repeat(60_000) } });
  let count = 0;
  const fill = async () => {
    for (; count < 1000; count += 1, await registry.read()) await registry.createVm(of(count));
  };
  await assert.rejects(fill(), (error) => error instanceof ColoError && error.code === errorCodes.host);
  assert.ok(count > 50 && count * 80_000 < listingBytesMax * 0.6, `${count} were taken`);
  const [vm] = (await registry.read()).vms;
  assert.ok(vm !== undefined);
  assert.equal(await registry.removeVm(vm, { placement: undefined, nodes: [], addresses: [] }), true);
  await registry.read();
  assert.equal(await registry.createVm(of(count)), true);
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
