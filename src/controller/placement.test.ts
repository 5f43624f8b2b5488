// Placing VMs: single decisions, and whole clusters of reconcilers on one registry and one arbiter, with children whose
// roles are the real state machine (role.ts), under random deaths, restarts, drains and old views.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { TermRecord } from '../failover/arbiter/arbiter.ts';
import { MemoryArbiter, type Terms } from '../failover/arbiter/memory.ts';
import { MemoryStore, newShared, type Shared } from '../registry/memory-store.ts';
import {
  type ClusterView,
  type Hosted,
  type NodeInfo,
  Registry,
  type Removed,
  type VmRecord,
} from '../registry/registry.ts';
import { type Child, choose, type PlacementAction, Reconciler } from './placement.ts';
import { Role, type RoleAction, type WantedRole } from './role.ts';

const GiB = 2 ** 30;
const life = '00000001';

function hosted(part: Partial<Hosted>): Hosted {
  const rest = { role: 'primary', state: 'alone', why: '', protected: false, term: 1, port: 1, failures: 0 } as const;
  return { vm: 'web', life, ...rest, ...part };
}

function info(node: string, part: Partial<NodeInfo> = {}): NodeInfo {
  const room = { cores: 2, memoryBytes: 8 * GiB, memoryFreeBytes: 4 * GiB };
  return { node, address: node, apiPort: 1, version: '', refused: 0, hosted: [], ...room, ...part };
}

function vmRecord(part: Partial<VmRecord> = {}): VmRecord & { revision: number } {
  return { vm: 'web', life, home: 'h1', spec: {}, memoryBytes: GiB / 4, protect: true, revision: 1, ...part };
}

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
  assert.deepEqual(plan('h1', view), [{ kind: 'start', vm: 'web', first: true }]);
  assert.deepEqual(plan('h2', view), [{ kind: 'start', vm: 'web', first: false }]);
  assert.deepEqual(plan('h3', view), []);
  const secondary = hosted({ role: 'secondary', state: 'idle' });
  assert.deepEqual(
    plan('h3', view, { child: secondary }).map((one) => one.kind),
    ['leave'],
  );
  for (const state of ['suspecting', 'taking-over'])
    assert.deepEqual(plan('h3', view, { child: { ...secondary, state } }), [], `it is ${state}`);
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
  assert.deepEqual(at(500), [{ kind: 'start', vm: 'web', first: true }]);
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
  assert.deepEqual(kinds(cluster({ placements: placed('h1', 'h2'), nodes: [info('h1')] })), []);
});

// ---- whole clusters ----

interface ModelChild {
  node: string;
  role: Role;
  /** The state of the guest is here: it runs, or this node holds a complete checkpoint. */
  holds: 'nothing' | 'runs' | 'checkpoint';
  peer: string | undefined;
  peers: string[];
  stateSince: number;
}

/** Three hosts. Claims and pairings take no time; the registry and the arbiter are always reached, but views may be old. */
class Model {
  now = 0;
  readonly terms: Terms = new Map();
  readonly arbiter = new MemoryArbiter(this.terms);
  readonly shared: Shared = newShared();
  readonly names = ['h1', 'h2', 'h3'];
  readonly up = new Set(this.names);
  readonly children = new Map<string, ModelChild>();
  readonly reconcilers = new Map(this.names.map((name) => [name, new Reconciler(name)]));
  readonly views = new Map<string, { cluster: ClusterView; own: Hosted[] }>();
  /** Children that are asked to leave after a while. */
  readonly late = new Map<string, PlacementAction[]>();
  readonly problems: string[] = [];
  boots = 0;

  registry(): Registry {
    return new Registry(new MemoryStore(this.shared, { now: () => this.now }));
  }

  hosted(node: string): Hosted[] {
    const child = this.children.get(node);
    if (child === undefined) return [];
    const kind = child.role.state.kind;
    const role = kind === 'primary' || kind === 'secondary' ? kind : 'stopped';
    const state = child.holds === 'nothing' ? 'idle' : child.peer === undefined ? 'alone' : 'protected';
    const term = role === 'primary' ? (this.terms.get('web')?.term ?? 0) : 0;
    return [hosted({ role, state, term, protected: child.peer !== undefined })];
  }

  async tick(node: string, { old, late }: { old: boolean; late: boolean }): Promise<void> {
    if (!this.up.has(node)) return;
    const registry = this.registry();
    await registry.announce(info(node, { hosted: this.hosted(node) }), 6000);
    const seen = this.views.get(node);
    const fresh = { cluster: await registry.read(), own: this.hosted(node) };
    // What its own child said may be as old: the registry may take its time after it was asked.
    const { cluster: view, own } = old && seen !== undefined ? seen : fresh;
    const said = fresh.own.length === own.length ? own : fresh.own;
    this.views.set(node, { cluster: view, own: said });
    const children = new Map<string, Child>();
    for (const one of said) children.set('web', { ...one, stateSince: this.children.get(node)?.stateSince ?? 0 });
    const record = this.terms.get('web');
    const records = new Map(record === undefined ? [] : [['web', record]]);
    const actions = this.reconcilers.get(node)?.plan({ cluster: view, fresh: true, children, records }, this.now) ?? [];
    for (const action of this.late.get(node) ?? []) await this.perform(node, action, registry);
    const isLate = ({ kind }: PlacementAction) => late && kind === 'leave';
    this.late.set(node, actions.filter(isLate));
    for (const action of actions) if (!isLate(action)) await this.perform(node, action, registry);
  }

  async perform(node: string, action: PlacementAction, registry: Registry): Promise<void> {
    switch (action.kind) {
      case 'place':
        await registry.place(action.vm, action.placement);
        return;
      case 'start':
        return this.startChild(node, action.first || this.terms.has('web') ? 'auto' : 'secondary');
      case 'bootAnew':
        if (await this.leave(node)) await this.startChild(node, 'primary');
        return;
      case 'leave':
        await this.leave(node);
        return;
      case 'strike':
        this.problems.push('nothing was removed');
        return;
      case 'stop':
      case 'restart':
        await this.loseChild(node);
        return;
      case 'setPeers': {
        const child = this.children.get(node);
        if (child !== undefined) child.peers = action.peers.map((peer) => peer.node);
        return;
      }
      case 'failover':
        await this.handOver(node);
        return;
    }
  }

  async startChild(node: string, wanted: WantedRole): Promise<void> {
    if (this.children.has(node)) this.problems.push(`${node} has a child already`);
    const child: ModelChild = {
      node,
      role: new Role(wanted),
      holds: 'nothing',
      peer: undefined,
      peers: [],
      stateSince: this.now,
    };
    this.children.set(node, child);
    await this.act(child, child.role.on({ kind: 'start' }));
  }

  /** What node/terms.ts and node/node.ts do. */
  async act(child: ModelChild, actions: RoleAction[]): Promise<void> {
    for (const action of actions) {
      const known = await this.arbiter.read('web');
      if (action.kind === 'look') {
        const mine = known?.peer === null ? 'mine' : 'pair';
        const standing = known === undefined ? 'none' : known.owner === child.node ? mine : 'other';
        await this.act(child, child.role.on({ kind: 'seen', standing }));
      } else if (action.kind === 'claimFirst') {
        const won =
          (known === undefined || known.owner === child.node) &&
          (await this.arbiter.claim('web', known?.term ?? 0, { owner: child.node, peer: null })).won;
        await this.act(child, child.role.on({ kind: 'claimed', outcome: won ? 'won' : 'lost' }));
      } else if (action.kind === 'startPrimary') {
        const holder = [...this.children.values()].find((one) => one.holds !== 'nothing');
        if (holder !== undefined) this.problems.push(`${child.node} boots while ${holder.node} holds the VM`);
        this.boots += 1;
        child.holds = 'runs';
      }
    }
  }

  /** A primary that is alone protects itself by the first of its peers that waits for it. */
  async pair(): Promise<void> {
    for (const child of this.children.values()) {
      if (child.holds !== 'runs' || child.peer !== undefined) continue;
      const peer = child.peers
        .map((name) => this.children.get(name))
        .find((one) => one?.role.state.kind === 'secondary' && one.holds === 'nothing');
      const record = this.terms.get('web');
      if (peer === undefined || record === undefined) continue;
      const claim = await this.arbiter.claim('web', record.term, { owner: child.node, peer: peer.node });
      if (!claim.won) continue;
      child.peer = peer.node;
      Object.assign(peer, { holds: 'checkpoint', peer: child.node });
    }
  }

  end(node: string): ModelChild | undefined {
    const child = this.children.get(node);
    this.children.delete(node);
    return child;
  }

  /** The child is gone, and its peer notices. */
  async loseChild(node: string): Promise<void> {
    const peer = this.children.get(this.end(node)?.peer ?? '');
    if (peer?.peer === node) await this.goOn(peer);
  }

  /** What node/node.ts does when it is asked to leave. */
  async leave(node: string): Promise<boolean> {
    if (this.children.get(node)?.role.state.kind === 'primary') return false;
    await this.loseChild(node);
    return true;
  }

  async goOn(child: ModelChild): Promise<void> {
    const record = this.terms.get('web');
    const claim = await this.arbiter.claim('web', record?.term ?? 0, { owner: child.node, peer: null });
    if (!claim.won) return;
    child.peer = undefined;
    child.holds = 'runs';
    if (child.role.state.kind === 'secondary') child.role.on({ kind: 'tookOver' });
  }

  async handOver(node: string): Promise<void> {
    const child = this.children.get(node);
    const heir = this.children.get(child?.peer ?? '');
    if (child === undefined || heir === undefined) return;
    await this.goOn(heir);
    Object.assign(child, { holds: 'nothing', peer: undefined, stateSince: this.now });
    child.role.on({ kind: 'fenced', why: '' });
    child.role.on({ kind: 'cleared' });
  }

  check(): void {
    const running = [...this.children.values()].filter((one) => one.holds === 'runs');
    if (running.length > 1) this.problems.push(`it runs on ${running.map((one) => one.node).join(' and ')}`);
    for (const { node } of running)
      if (this.terms.get('web')?.owner !== node) this.problems.push(`${node} runs it without the term`);
  }
}

const step = fc.oneof(
  {
    weight: 12,
    arbitrary: fc.record({
      ...{ kind: fc.constant('tick' as const), node: fc.nat(2) },
      ...{ old: fc.boolean(), late: fc.boolean() },
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constantFrom('die' as const, 'boot' as const, 'childDies' as const),
      node: fc.nat(2),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constantFrom('drain' as const, 'undrain' as const), node: fc.nat(2) }) },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('wait' as const), ms: fc.nat(8000) }) },
);

async function calm(model: Model): Promise<void> {
  for (let round = 0; round < 60; round += 1) {
    model.now += 1000;
    for (const node of model.names) await model.tick(node, { old: false, late: false });
    await model.pair();
    model.check();
  }
}

test('whatever dies, comes back, is drained or sees an old view: one copy runs, and in the end it is protected', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 80 }), async (steps) => {
      const model = new Model();
      await model.registry().createVm(vmRecord());
      for (const one of steps) {
        const node = 'node' in one ? (model.names[one.node] ?? 'h1') : '';
        if (one.kind === 'tick') await model.tick(node, one);
        else if (one.kind === 'wait') model.now += one.ms;
        else if (one.kind === 'boot') model.up.add(node);
        else if (one.kind === 'drain') await model.registry().drain(node);
        else if (one.kind === 'undrain') await undrain(model, node);
        else {
          if (one.kind === 'die') model.up.delete(node);
          await model.loseChild(node);
        }
        await model.pair();
        model.check();
      }
      for (const node of model.names) {
        model.up.add(node);
        await undrain(model, node);
      }
      await calm(model);
      assert.deepEqual(model.problems, []);
      const all = [...model.children.values()].map((one) => one.holds).sort();
      assert.deepEqual(all, ['checkpoint', 'runs'], 'it runs protected, and no third node has a child');
      await model.registry().drain('h1');
      await calm(model);
      assert.equal(model.children.has('h1'), false, 'a drained node is empty');
      assert.deepEqual([...model.children.values()].map((one) => one.holds).sort(), ['checkpoint', 'runs']);
      assert.deepEqual(model.problems, []);
    }),
    { numRuns: 150 },
  );
});

async function undrain(model: Model, node: string): Promise<void> {
  const revision = (await model.registry().read()).drains.get(node);
  if (revision !== undefined) await model.registry().undrain(node, revision);
}

test('a secondary that is to leave, and takes over before it does, keeps the VM and gets a new secondary', async () => {
  const model = new Model();
  const now = { old: false, late: false };
  await model.registry().createVm(vmRecord());
  await calm(model);
  const [secondary = ''] = [...model.children.values()]
    .filter((one) => one.holds === 'checkpoint')
    .map((one) => one.node);
  await model.registry().drain(secondary);
  await model.tick('h1', now);
  await model.tick(secondary, { ...now, late: true });
  model.up.delete('h1');
  await model.loseChild('h1');
  await calm(model);
  assert.deepEqual(model.problems, []);
  assert.equal(model.boots, 1);
  const holds = [...model.children.values()].map((one) => one.holds).sort();
  assert.deepEqual(holds, ['checkpoint', 'runs']);
  assert.equal(model.children.has(secondary), true, 'no other node is there for both');
});
