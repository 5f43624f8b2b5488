// Which names and addresses a VM may have.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Refusal } from '../api/refusal.ts';
import type { ClusterView, NodeInfo, Removed, VmRecord } from '../cluster/registry.ts';
import { addressesOf, refuseSecond, refuseTaken } from './taken.ts';

const mac = '52:54:00:00:00:07';
const address = '192.0.2.7';
const spec = (vm: string, network: object) => ({ vm, boot: { kernel: '/vmlinuz' }, network });

function record(vm: string, network: object, revision = 1): VmRecord & { revision: number } {
  return { vm, life: '0123abcd', home: 'h1', spec: spec(vm, network), memoryBytes: 1, protect: true, revision };
}

function view(part: { vms?: (VmRecord & { revision: number })[]; left?: Removed[] }): ClusterView {
  const nodes = [{ node: 'h1' } as NodeInfo];
  const removed = new Map((part.left ?? []).map((one) => [one.vm, one]));
  return { nodes, vms: part.vms ?? [], removed, drains: new Map(), placements: new Map(), problems: [] };
}

function left(vm: string, nodes: string[]): Removed {
  return { vm, life: 'ffffffff', nodes, addresses: [mac, address], revision: 1 };
}

const asked = record('web', { mac, address });
const says = (text: RegExp) => (error: unknown) =>
  error instanceof Refusal && error.status === 409 && text.test(error.message);
const refuse =
  (of: ClusterView, force = false) =>
  () =>
    refuseTaken(of, asked, { force });

test('an address of another VM is refused, its own name is not', () => {
  assert.throws(refuse(view({ vms: [record('db', { mac })] })), says(/db has the address 52:54:00:00:00:07/));
  assert.throws(refuse(view({ vms: [record('db', { address })] }), true), says(/db has the address 192/));
  assert.doesNotThrow(refuse(view({ vms: [asked, record('db', { mac: '52:54:00:00:00:08', address: '192.0.2.8' })] })));
});

test('a name or an address of a removed VM is refused for as long as a node may run it; force says that it is off', () => {
  const own = view({ left: [left('web', ['h1'])] });
  assert.throws(refuse(own), says(/^web was removed, and is still on h1$/));
  assert.throws(refuse(view({ left: [left('web', ['h1', 'h2'])] })), says(/h1 and h2 \(which does not answer\)$/));
  const other = view({ left: [left('db', ['h2'])] });
  assert.throws(refuse(other), says(/^db, which has the address .*, was removed, and is still on h2/));
  for (const one of [own, other]) assert.doesNotThrow(refuse(one, true));
  assert.doesNotThrow(refuse(view({ left: [left('web', []), left('db', [])] })));
});

test('a spec that this node cannot check keeps nobody else from running VMs, and its addresses are known', () => {
  const later = { ...record('db', { mac: '52:54:00:00:00:08', later: true }), spec: { of: 'a later version' } };
  assert.doesNotThrow(refuse(view({ vms: [later] })));
  const named = { vm: 'db', spec: { later: true, network: { address }, cards: [{ mac }, 7] } };
  assert.deepEqual(addressesOf(named), [address, mac]);
  assert.throws(refuse(view({ vms: [{ ...later, spec: named.spec }] })), says(/db has the address/));
});

test('of two that took one address at the same moment the second gives way, and only it', () => {
  const db = record('db', { mac }, 7);
  const web = { ...asked, revision: 8 };
  const both = view({ vms: [db, web] });
  assert.throws(() => refuseSecond(both, web), says(/db has got one of its addresses/));
  assert.doesNotThrow(() => refuseSecond(both, db));
});
