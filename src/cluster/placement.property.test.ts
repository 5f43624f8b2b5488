// Placing VMs in whole clusters of reconcilers on one registry and one arbiter, with children whose roles are the real
// state machine (controller/role.ts), under random deaths, restarts, drains and old views.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { MemoryArbiter, type Terms } from '../arbiter/memory.ts';
import { Role, type RoleAction, type WantedRole } from '../controller/role.ts';
import { MemoryStore, newShared, type Shared } from './memory-store.ts';
import { type Child, type PlacementAction, Reconciler } from './placement.ts';
import { hosted, info, vmRecord } from './placement-samples.ts';
import { type ClusterView, type Hosted, Registry } from './registry.ts';

interface ModelChild {
  node: string;
  role: Role;
  /** The state of the guest is here: it runs, or this node holds a complete checkpoint. */
  holds: 'nothing' | 'runs' | 'checkpoint';
  peer: string | undefined;
  peers: string[];
  stateSince: number;
}

/**
 * Three hosts. Claims and pairings take no time; the registry and the arbiter are always reached, but views may be old.
 */
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
  /** Nodes whose children take long to take over, and of which the others see what they said before. */
  readonly slow = new Map<string, Hosted[]>();
  /** Children that are asked to leave after a while. */
  readonly late = new Map<string, PlacementAction[]>();
  readonly problems: string[] = [];
  boots = 0;

  registry(): Registry {
    return new Registry(new MemoryStore(this.shared, { now: () => this.now }));
  }

  hosted(node: string): Hosted[] {
    const child = this.children.get(node);
    const before = this.slow.get(node);
    if (child === undefined || before?.length === 1) return child === undefined ? [] : (before ?? []);
    const kind = child.role.state.kind;
    if (kind === 'deciding') return [hosted({ role: 'secondary', state: 'waiting', term: 0 })];
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
        if (action.as === 'secondary') return this.startChild(node, 'secondary');
        return this.startChild(node, action.as === 'first' || this.terms.has('web') ? 'auto' : 'secondary');
      case 'bootAnew':
        if (await this.leave(node)) await this.startChild(node, 'auto');
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
      } else if (action.kind === 'askPeer') {
        await this.act(child, child.role.on({ kind: 'peerAsked', free: this.isFree(child, known?.peer ?? '') }));
      } else if (action.kind === 'startPrimary') {
        const holder = [...this.children.values()].find((one) => one.holds !== 'nothing');
        if (holder !== undefined) this.problems.push(`${child.node} boots while ${holder.node} holds the VM`);
        this.boots += 1;
        child.holds = 'runs';
      }
    }
  }

  /** A node accepts links only while it holds nothing. */
  isFree(child: ModelChild, name: string): boolean {
    const peer = child.peers.includes(name) ? this.children.get(name) : undefined;
    return peer?.role.state.kind === 'secondary' && peer.holds === 'nothing';
  }

  /**
   * What children do by themselves: they look again, take over, and a primary protects itself by a peer that is free.
   */
  async goOnAll(): Promise<void> {
    for (const child of this.children.values()) {
      if (child.role.state.kind === 'deciding') await this.act(child, child.role.on({ kind: 'start' }));
      if (child.peer !== undefined && this.children.get(child.peer)?.peer !== child.node) await this.goOn(child);
      if (child.holds !== 'runs' || child.peer !== undefined) continue;
      const peer = this.children.get(child.peers.find((name) => this.isFree(child, name)) ?? '');
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
    if (this.slow.has(child.node)) return;
    const record = this.terms.get('web');
    const isNamed = record?.owner === child.node || record?.peer === child.node;
    const claim = await this.arbiter.claim('web', record?.term ?? 0, { owner: child.node, peer: null });
    if (!claim.won) return;
    if (!isNamed) this.problems.push(`${child.node} lost the term while it held the VM`);
    child.peer = undefined;
    child.holds = 'runs';
    if (child.role.state.kind === 'secondary') child.role.on({ kind: 'tookOver' });
  }

  async handOver(node: string): Promise<void> {
    const child = this.children.get(node);
    const heir = this.children.get(child?.peer ?? '');
    if (child === undefined || heir === undefined || this.slow.has(heir.node)) return;
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
  { weight: 2, arbitrary: fc.record({ kind: fc.constantFrom('slow' as const, 'wake' as const), node: fc.nat(2) }) },
);

async function calm(model: Model): Promise<void> {
  for (let round = 0; round < 60; round += 1) {
    model.now += 1000;
    for (const node of model.names) await model.tick(node, { old: false, late: false });
    await model.goOnAll();
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
        else if (one.kind === 'slow') model.slow.set(node, model.hosted(node));
        else if (one.kind === 'wake') model.slow.delete(node);
        else {
          if (one.kind === 'die') model.up.delete(node);
          await model.loseChild(node);
        }
        await model.goOnAll();
        model.check();
      }
      model.slow.clear();
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

test('an owner that lost its child boots nothing while its peer holds the VM, whatever the registry says of that peer', async () => {
  const model = new Model();
  const now = { old: false, late: false };
  const turn = async (...nodes: string[]) => {
    model.now += 1000;
    for (const node of nodes) await model.tick(node, now);
    await model.goOnAll();
    model.check();
  };
  await model.registry().createVm(vmRecord());
  for (let round = 0; round < 10 && !model.children.has('h2'); round += 1) await turn('h1', 'h2');
  // What it says from here on is of before the pair, and it takes its time to take over.
  model.slow.set('h2', [hosted({ role: 'secondary', state: 'idle', term: 0 })]);
  for (let round = 0; round < 3; round += 1) await turn('h1', 'h2');
  assert.deepEqual(model.terms.get('web'), { term: 2, owner: 'h1', peer: 'h2' });
  await model.loseChild('h1');
  for (let round = 0; round < 20; round += 1) await turn('h1', 'h2');
  assert.deepEqual(model.problems, []);
  assert.equal(model.children.get('h1')?.role.state.kind, 'deciding', 'it asks, and waits');
  model.slow.clear();
  await calm(model);
  assert.deepEqual({ problems: model.problems, boots: model.boots }, { problems: [], boots: 1 });
  assert.equal(model.children.get('h2')?.holds, 'runs');
});
