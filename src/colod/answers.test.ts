// What the service says of VMs, from what the nodes announced.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { clusterSchema } from '../api/cluster.ts';
import type { ClusterView, Hosted, NodeInfo, VmRecord } from '../cluster/registry.ts';
import { clusterAnswer } from './answers.ts';

const life = '0123abcd';
const vm: VmRecord & { revision: number } = {
  ...{
    vm: 'web',
    life,
    home: 'h1',
    spec: { network: { address: '192.0.2.7' } },
    memoryBytes: 1,
    protect: true,
    revision: 1,
  },
};

function node(name: string, ...hosted: Partial<Hosted>[]): NodeInfo {
  const rest = { address: name, apiPort: 1, cores: 1, memoryBytes: 2, memoryFreeBytes: 1, version: '1', refused: 0 };
  const whole = { vm: 'web', life, state: '', why: '', protected: false, term: 0, port: 1, failures: 0 };
  return { node: name, ...rest, hosted: hosted.map((one) => ({ ...whole, role: 'secondary', ...one }) as Hosted) };
}

function answer(nodes: NodeInfo[], part: Partial<ClusterView> = {}) {
  const placements = new Map([['web', { life, nodes: ['h1', 'h2'], revision: 1 }]]);
  const rest = { drains: new Map<string, number>(), removed: new Map(), problems: [] };
  const view = { nodes, vms: [vm], placements, ...rest, ...part };
  return clusterSchema.parse(clusterAnswer(view, { answeredBy: 'h1', registryProblem: '' }));
}

function removed(...nodes: string[]) {
  return { vm: 'web', life: 'ffffffff', nodes, addresses: ['52:54:00:00:00:07', '192.0.2.7'], revision: 1 };
}

const stateOf = (...nodes: NodeInfo[]) => answer(nodes).vms[0];

test('a VM is what its nodes say: protected, unprotected, starting, down, ended', () => {
  const primary = { role: 'primary', state: 'alone', term: 3 } as const;
  const safe = { ...primary, state: 'protected', protected: true };
  assert.deepEqual(stateOf(node('h1', safe), node('h2', { protected: true })), {
    ...{ vm: 'web', state: 'protected', why: '', primary: 'h1', secondary: 'h2', nodes: ['h1', 'h2'], term: 3 },
    address: '192.0.2.7',
  });
  assert.equal(stateOf(node('h1', primary), node('h2', {}))?.state, 'unprotected');
  assert.equal(stateOf(node('h1', { role: 'starting' }), node('h2'))?.state, 'starting');
  assert.equal(stateOf(node('h1'), node('h2'))?.state, 'starting');
  const alone = { role: 'primary', state: 'alone', why: 'h2 was lost: no answer' } as const;
  assert.equal(stateOf(node('h1', alone))?.why, 'alone: h2 was lost: no answer');
  assert.equal(stateOf(node('h3'))?.why, 'no node of it is there');
  assert.equal(answer([node('h1')], { placements: new Map() }).vms[0]?.state, 'starting');
  assert.equal(stateOf(node('h1', {}), node('h2', {}))?.state, 'down');
  assert.equal(stateOf(node('h1', { role: 'stopped', why: 'the guest shut down' }))?.why, 'the guest shut down');
  assert.equal(stateOf(node('h1', { role: 'dead', failures: 3, why: 'no bridge' }))?.why, 'h1: no bridge');
  const again = { role: 'starting', failures: 3, why: '' } as const;
  assert.equal(stateOf(node('h1', again))?.why, 'h1: it is being started again');
});

test('of two that say primary the one with the newest term is shown', () => {
  const old = node('h1', { role: 'primary', term: 3 });
  assert.equal(stateOf(old, node('h2', { role: 'primary', term: 4 }))?.primary, 'h2');
});

test('a copy of another life is none of this VM, and one of a removed VM is still shown', () => {
  const other = node('h1', { role: 'primary', life: 'ffffffff' });
  assert.equal(stateOf(other)?.state, 'starting');
  assert.deepEqual(
    answer([other], { vms: [], removed: new Map([['web', removed()]]) }).vms.map((one) => [
      one.vm,
      one.state,
      one.nodes,
    ]),
    [['web', 'removing', ['h1']]],
  );
});

test('a drained node is empty; one that is being drained is not yet', () => {
  const drains = new Map([['h1', 1]]);
  const states = (...nodes: NodeInfo[]) => answer(nodes, { drains }).nodes.map((one) => one.state);
  assert.deepEqual(states(node('h1', {}), node('h2', {})), ['draining', 'ready']);
  assert.deepEqual(states(node('h1', { role: 'dead' }), node('h2', {})), ['drained', 'ready']);
});

test('a child of which the registry says nothing is named as a problem', () => {
  const { vms, registry } = answer([node('h1', { role: 'primary' })], { vms: [] });
  assert.deepEqual(vms, []);
  assert.match(registry.problems.join(), /h1 runs web .* left alone/);
});

test('a removed VM is shown for as long as a node may run it, also one that is not there', () => {
  const shown = (...nodes: string[]) =>
    answer([node('h1')], { vms: [], removed: new Map([['web', removed(...nodes)]]) }).vms[0];
  assert.deepEqual(shown('h1', 'h2'), {
    ...{ vm: 'web', state: 'removing', why: 'it was removed; h2 may still run it', nodes: ['h1', 'h2'] },
    ...{ primary: null, secondary: null, term: 0, address: '192.0.2.7' },
  });
  assert.equal(shown('h1')?.why, 'it was removed');
  assert.equal(shown(), undefined);
});
