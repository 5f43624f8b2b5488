// A guest that is booted anew, because both copies were lost, is announced like one that was taken over: who ran it
// before may be stopped with a frame on its way, and the network would look for the guest there when it wakes.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { claimOf } from '../src/packet/claim.ts';
import { outside } from './world/outside.ts';
import { drawPlan } from './world/plan.ts';
import { Random } from './world/random.ts';
import { World } from './world/world.ts';

const killAtMs = 1500;
/** The longest pause between two announcements (src/node/node.ts), and what a boot and the network add. */
const pauseMsMax = 4100;

/** The moments at which each node announced the guest, with both nodes killed once. */
function announcements(seed: number): Promise<{ at: number; node: string }[]> {
  const drawn = drawPlan(seed, new Random(seed));
  // Nobody asks for the guest's address: its answers would be claims as well.
  const wire = drawn.wire === undefined ? {} : { wire: { ...drawn.wire, lookups: 0 } };
  const quiet = { ...wire, arbiter: { ...drawn.arbiter, lose: 0 } };
  const calm = { ...drawn, ...quiet, faults: [], healMs: killAtMs, verbose: false };
  return outside(() => {
    const world = new World(seed, [], { plan: calm });
    const heard: { at: number; node: string }[] = [];
    world.network.onFrame = (node, frame) => {
      if (claimOf(frame) !== undefined) heard.push({ at: world.schedule.now, node });
    };
    world.schedule.at(killAtMs, () => {
      for (const node of world.nodes) {
        world.strike(node);
        node.kill('process');
      }
    });
    world.run();
    assert.deepEqual(
      { violation: world.violation, boots: world.boots },
      { violation: undefined, boots: 2 },
      `seed ${seed}`,
    );
    return heard;
  });
}

test('a guest that is booted anew is announced on and on, and one that boots for the first time speaks for itself', async () => {
  for (const seed of [1, 2, 3]) {
    const heard = await announcements(seed);
    const first = heard.filter(({ at }) => at < killAtMs);
    assert.ok(first.length <= 1, `seed ${seed}: by the guest itself`);
    const later = heard.filter(({ at }) => at > killAtMs);
    assert.ok(later.length >= 8, `seed ${seed}: ${later.length} times`);
    assert.equal(new Set(later.map(({ node }) => node)).size, 1);
    for (const [index, { at }] of later.slice(1).entries())
      assert.ok(at - (later[index]?.at ?? 0) < pauseMsMax, `seed ${seed}: nothing before ${at}`);
  }
});
