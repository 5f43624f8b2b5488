// A node that is asked to leave (its VM is placed elsewhere) decides by what is true at that moment: whole nodes, under
// the clock of the simulation.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { outside } from './world/outside.ts';
import { drawPlan } from './world/plan.ts';
import { Random } from './world/random.ts';
import { checkers } from './world/run.ts';
import { World } from './world/world.ts';

const seeds = [1, 2, 3, 4];
const askFromMs = 2500;
const askUntilMs = 4000;

interface Asked {
  /** The state of the secondary, or the role of its node, just before; and what came of it. */
  state: string;
  left: boolean;
}

/** Asks node b to leave every millisecond, as long as `when` says so of its state; resolves to what it did. */
function ask(seed: number, { kill, when }: { kill: boolean; when: (state: string) => boolean }) {
  const drawn = drawPlan(seed, new Random(seed));
  const arbiter = { ...drawn.arbiter, lose: 0 };
  const rest = { verbose: false, arbiter, disk: undefined, faults: [], healMs: askUntilMs };
  return outside(() => {
    const world = new World(seed, checkers, { plan: { ...drawn, ...rest } });
    const asked: Asked[] = [];
    const askOnce = () => {
      const { node } = world.b;
      const state = node?.secondary?.pair.state.kind ?? node?.role.state.kind ?? 'dead';
      if (node === undefined || !when(state)) return;
      try {
        node.leave();
        asked.push({ state, left: true });
      } catch {
        asked.push({ state, left: false });
      }
    };
    if (kill) world.schedule.at(askFromMs, () => world.a.kill('host'));
    for (let at = askFromMs; at < askUntilMs; at += 1) world.schedule.at(at, () => world.b.process?.run(askOnce));
    world.run();
    assert.equal(world.violation, undefined, `seed ${seed}`);
    return { asked, world };
  });
}

test('a node whose primary is in doubt, that takes over or has taken over does not leave, and the VM goes on', async () => {
  const states = new Set<string>();
  for (const seed of seeds) {
    const { asked, world } = await ask(seed, { kill: true, when: (state) => !/protected|idle|joining/.test(state) });
    for (const { state, left } of asked) {
      states.add(state);
      assert.equal(left, false, `seed ${seed}: it left while ${state}`);
    }
    assert.equal(world.boots, 1, `seed ${seed}: no copy was lost`);
  }
  assert.ok(states.has('suspecting') && states.has('primary'), [...states].join());
});

test('one whose primary lives keeps its copy until that has gone on alone, and leaves then', async () => {
  for (const seed of seeds) {
    const { asked, world } = await ask(seed, { kill: false, when: (state) => state !== 'ended' });
    assert.deepEqual(asked[0], { state: 'protected', left: false }, `seed ${seed}`);
    const first = asked.find(({ left }) => left);
    assert.match(first?.state ?? 'it never left', /^(leaving|idle)$/, `seed ${seed}`);
    assert.equal(world.record?.owner, 'a', `seed ${seed}: it never claimed the term`);
    assert.equal(world.boots, 1);
  }
});
