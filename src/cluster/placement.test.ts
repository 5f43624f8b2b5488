// Placing VMs: single decisions. Whole clusters are in placement.property.test.ts.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { TermRecord } from '../arbiter/arbiter.ts';
import { type Child, choose, type PlacementAction, Reconciler } from './placement.ts';
import { GiB, hosted, info, life, vmRecord } from './placement-samples.ts';
import type { ClusterView, Hosted, NodeInfo, Removed } from './registry.ts';

function cluster(part: Partial<ClusterView>): ClusterView {
  const vms = [vmRecord()];
  return {
    nodes: ['h1', 'h2', 'h3'].map((node) => info(node)),
    drains: new Map(),
    removed: new Map(),
    vms,
    placements: new Map(),
    problems: [],
    ...part,
  };
}

function removedWeb(...nodes: string[]): Removed {
  return { vm: 'web', life, nodes, addresses: [], revision: 9 };
}

function placed(...nodes: string[]): ClusterView['placements'] {
  return new Map([['web', { life, nodes, revision: 5 }]]);
}

function plan(
  self: string,
  view: ClusterView,
  {
    child,
    record,
    fresh = true,
    now = 10_000,
  }: { child?: Hosted; record?: TermRecord; fresh?: boolean; now?: number } = {},
): PlacementAction[] {
  const children = new Map<string, Child>(child === undefined ? [] : [['web', { ...child, stateSince: 0 }]]);
  const records = new Map(record === undefined ? [] : [['web', record]]);
  return new Reconciler(self)
    .plan({ cluster: view, fresh, children, records }, now)
    .filter((action) => action.kind !== 'setPeers');
}

test('the home of a VM places it, and only its home', () => {
  assert.deepEqual(
    plan('h1', cluster({})).map((one) => [one.kind, 'placement' in one ? one.placement.nodes : '']),
    [['place', ['h1']]],
  );
  assert.deepEqual(plan('h2', cluster({})), []);
});

test('a placed node starts a child; only the first may boot; one that is not placed stops its secondary', () => {
  const view = cluster({ placements: placed('h1', 'h2') });
  assert.deepEqual(plan('h1', view), [{ kind: 'start', vm: 'web', as: 'first' }]);
  assert.deepEqual(plan('h2', view), [{ kind: 'start', vm: 'web', as: 'known' }]);
  assert.deepEqual(plan('h3', view), []);
  const secondary = hosted({ role: 'secondary', state: 'idle' });
  assert.deepEqual(
    plan('h3', view, { child: secondary }).map((one) => one.kind),
    ['leave'],
  );
  for (const state of ['suspecting', 'taking-over'])
    assert.deepEqual(plan('h3', view, { child: { ...secondary, state } }), [], `it is ${state}`);
});

test('a VM whose only copy ended with its QEMU is started again; one whose guest has switched itself off is not', () => {
  const view = cluster({ placements: placed('h1', 'h2') });
  const ended = hosted({ role: 'stopped', state: 'stopped', why: 'QEMU was killed (SIGKILL)' });
  const kinds = (child: Hosted, fresh = true) => plan('h1', view, { child, fresh }).map((one) => one.kind);
  assert.deepEqual(kinds({ ...ended, lost: true }), ['restart']);
  assert.deepEqual(kinds({ ...ended, lost: true }, false), [], 'nobody says whether it runs elsewhere');
  assert.deepEqual(kinds(ended), []);
});

test('without the registry nothing is stopped and nothing is placed, but what died is started again', () => {
  const view = cluster({ placements: placed('h1', 'h2'), nodes: [info('h1')] });
  assert.deepEqual(plan('h3', view, { child: hosted({ role: 'secondary' }), fresh: false }), []);
  assert.deepEqual(plan('h1', view, { child: hosted({}), fresh: false }), []);
  assert.deepEqual(plan('h1', cluster({ vms: [] }), { child: hosted({}), fresh: false }), []);
  const reconciler = new Reconciler('h1');
  const dead = new Map([['web', { ...hosted({ role: 'dead', failures: 1 }), stateSince: 0 }]]);
  const at = (now: number) => reconciler.plan({ cluster: view, fresh: false, children: dead, records: new Map() }, now);
  assert.deepEqual(at(0), []);
  assert.deepEqual(at(499), []);
  assert.deepEqual(at(500), [{ kind: 'start', vm: 'web', as: 'known' }]);
});

test('a VM without a record is booted only while the registry says that no other node has it: records can be lost', () => {
  const starts = (other: Partial<Hosted>, fresh = true) =>
    plan(
      'h1',
      cluster({ placements: placed('h1', 'h2'), nodes: [info('h1'), info('h2', { hosted: [hosted(other)] })] }),
      { fresh },
    );
  assert.deepEqual(starts({ role: 'primary' }), [{ kind: 'start', vm: 'web', as: 'secondary' }]);
  for (const role of ['secondary', 'starting', 'dead'] as const)
    assert.deepEqual(starts({ role, state: 'idle' }), [{ kind: 'start', vm: 'web', as: 'known' }], role);
  assert.deepEqual(starts({ life: 'ffffffff' }), [{ kind: 'start', vm: 'web', as: 'first' }], 'another VM');
  assert.deepEqual(starts({ life: 'ffffffff' }, false), [{ kind: 'start', vm: 'web', as: 'known' }]);
});

test('a child of a removed VM, or of an older life, is stopped before anything else is done with the name', () => {
  const stop = { kind: 'stop', vm: 'web', why: 'the VM was removed' };
  const removed = new Map([['web', removedWeb('h1', 'h2')]]);
  assert.deepEqual(plan('h1', cluster({ vms: [], removed }), { child: hosted({}) }), [stop]);
  const view = cluster({ placements: placed('h1', 'h2') });
  assert.deepEqual(plan('h1', view, { child: hosted({ life: 'ffffffff' }) }), [stop]);
});

test('a node strikes itself off a removed VM when it has no child of it any more and has said so, and not before', () => {
  const view = (said: NodeInfo[], ...nodes: string[]) =>
    cluster({ vms: [], nodes: said, removed: new Map([['web', removedWeb(...nodes)]]) });
  const gone = [info('h1'), info('h2')];
  const strike = [{ kind: 'strike', vm: 'web' }];
  assert.deepEqual(plan('h1', view(gone, 'h1', 'h2')), strike);
  assert.deepEqual(plan('h1', view(gone, 'h2')), [], 'each node for itself');
  assert.deepEqual(plan('h1', view(gone, 'h1'), { fresh: false }), []);
  const kinds = (...of: Parameters<typeof plan>) => plan(...of).map((one) => one.kind);
  assert.deepEqual(kinds('h1', view(gone, 'h1'), { child: hosted({ role: 'dead' }) }), ['stop']);
  const said = [info('h1', { hosted: [hosted({})] }), info('h2')];
  assert.deepEqual(plan('h1', view(said, 'h1')), [], 'the others still see it');
  assert.deepEqual(plan('h1', view([info('h2')], 'h1')), [], 'the others see nothing of this node');
  const later = [info('h1', { hosted: [hosted({ life: 'ffffffff' })] })];
  assert.deepEqual(plan('h1', view(later, 'h1')), strike, 'another life is another VM');
});

test('a VM of which the registry says nothing at all is left alone', () => {
  assert.deepEqual(plan('h1', cluster({ vms: [] }), { child: hosted({}) }), []);
});

test('the secondary goes to the node with the fewest VMs, then the most memory; never to one without room', () => {
  const nodes = [info('h1'), info('h2', { memoryFreeBytes: 3 * GiB }), info('h3'), info('h4', { memoryFreeBytes: 1 })];
  const vms = [vmRecord(), vmRecord({ vm: 'other' })];
  const placements = new Map([['other', { life, nodes: ['h3'], revision: 1 }]]);
  const view = cluster({ nodes, vms, placements });
  assert.equal(choose(view, { memoryBytes: GiB, exclude: ['h1'] }), 'h2');
  assert.equal(choose(view, { memoryBytes: GiB, exclude: ['h1', 'h2'] }), 'h3');
  assert.equal(choose(view, { memoryBytes: GiB, exclude: ['h1', 'h2', 'h3'] }), undefined);
  assert.equal(choose({ ...view, drains: new Map([['h2', 1]]) }, { memoryBytes: GiB, exclude: ['h1'] }), 'h3');
});

test('a secondary that is gone is replaced; one that protects the VM stays, also when its colod is down', () => {
  const nodes = [info('h1'), info('h3')];
  const view = cluster({ nodes, placements: placed('h1', 'h2') });
  const [place] = plan('h1', view, { child: hosted({}) });
  assert.deepEqual(place?.kind === 'place' && place.placement.nodes, ['h1', 'h3']);
  assert.deepEqual(plan('h1', view, { child: hosted({ state: 'protected', protected: true }) }), []);
  const alone = cluster({ nodes: [info('h1')], placements: placed('h1', 'h2') });
  assert.deepEqual(plan('h1', alone, { child: hosted({}) }), [], 'nobody else is there: it may come back');
});

test('a secondary that cannot run it, or that the primary does not reach for a minute, loses it to another node', () => {
  const failing = info('h2', { hosted: [hosted({ role: 'dead', failures: 4 })] });
  const nodesOf = (actions: PlacementAction[]) => actions.map((one) => one.kind === 'place' && one.placement.nodes);
  const placements = placed('h1', 'h2');
  const broken = cluster({ nodes: [info('h1'), failing, info('h3')], placements });
  assert.deepEqual(nodesOf(plan('h1', broken, { child: hosted({}), now: 1000 })), [['h1', 'h3']]);
  const unreached = cluster({ placements });
  assert.deepEqual(plan('h1', unreached, { child: hosted({}), now: 59_999 }), []);
  assert.deepEqual(nodesOf(plan('h1', unreached, { child: hosted({}), now: 60_000 })), [['h1', 'h3']]);
  assert.deepEqual(plan('h1', unreached, { child: hosted({ state: 'syncing' }), now: 600_000 }), []);
});

test('of two that say primary only the one with the higher term places', () => {
  const old = hosted({ term: 3 });
  const nodes = [info('h1', { hosted: [old] }), info('h2', { hosted: [hosted({ term: 5 })] }), info('h3')];
  const view = cluster({ nodes, placements: placed('h2', 'h3') });
  assert.deepEqual(plan('h1', view, { child: old }), []);
  const behind = cluster({ nodes, placements: placed('h1', 'h2') });
  const [place] = plan('h2', behind, { child: hosted({ term: 5 }) });
  assert.deepEqual(place?.kind === 'place' && place.placement.nodes, ['h2', 'h1']);
});

test('drain: the secondary moves away; a primary is handed over once its secondary is on a node that stays', () => {
  const child = hosted({ state: 'protected', protected: true });
  const secondaryGoes = cluster({ placements: placed('h1', 'h2'), drains: new Map([['h2', 1]]) });
  const [place] = plan('h1', secondaryGoes, { child });
  assert.deepEqual(place?.kind === 'place' && place.placement.nodes, ['h1', 'h3']);
  const primaryGoes = cluster({ placements: placed('h1', 'h2'), drains: new Map([['h1', 1]]) });
  assert.deepEqual(
    plan('h1', primaryGoes, { child }).map((one) => one.kind),
    ['failover'],
  );
  assert.deepEqual(plan('h1', primaryGoes, { child: hosted({}) }), [], 'nobody could take over');
  const bothGo = cluster({
    placements: placed('h1', 'h2'),
    drains: new Map([
      ['h1', 1],
      ['h2', 2],
    ]),
  });
  assert.deepEqual(
    plan('h1', bothGo, { child }).map((one) => one.kind),
    ['place'],
  );
  const nowhere = cluster({
    nodes: [info('h1'), info('h2')],
    placements: placed('h1', 'h2'),
    drains: new Map([['h2', 1]]),
  });
  assert.deepEqual(plan('h1', nowhere, { child }), []);
});

test('both nodes back with empty hands: the owner boots anew, but never while the peer may hold the VM', () => {
  const idle = hosted({ role: 'secondary', state: 'idle', term: 0 });
  const record = { term: 4, owner: 'h1', peer: 'h2' };
  const with2 = (part: Partial<Hosted>) =>
    cluster({
      placements: placed('h1', 'h2'),
      nodes: [info('h1'), info('h2', { hosted: [hosted({ ...idle, ...part })] })],
    });
  const kinds = (view: ClusterView, self = 'h1') => plan(self, view, { child: idle, record }).map((one) => one.kind);
  assert.deepEqual(kinds(with2({})), ['bootAnew']);
  assert.deepEqual(kinds(with2({}), 'h2'), []);
  assert.deepEqual(kinds(with2({ state: 'suspecting' })), []);
  assert.deepEqual(kinds(with2({ role: 'primary' })), []);
  const waiting = { ...idle, state: 'waiting' };
  const asking = plan('h1', with2({}), { child: waiting, record });
  assert.deepEqual(asking, [], 'it asks its peer already');
  assert.deepEqual(kinds(cluster({ placements: placed('h1', 'h2'), nodes: [info('h1')] })), []);
});
