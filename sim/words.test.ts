// A secondary that leaves has said why, and its primary tells that and not that a link was closed: whole nodes, of
// which one loses its disk while everything is copied to it for the first time.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { outside } from './world/outside.ts';
import { type DiskPlan, drawPlan } from './world/plan.ts';
import { Random } from './world/random.ts';
import { checkers } from './world/run.ts';
import { World } from './world/world.ts';

const strikeUntilMs = 4000;

/**
 * What the primary says of its lost secondary; by the seed, its disk fails for all of the copy or only at the end of
 * it.
 */
function reasons(seed: number, how: 'full' | 'failing', flush: DiskPlan['flush']): Promise<string[]> {
  const drawn = drawPlan(seed, new Random(seed));
  const disk = { sectors: 40, flush, writeMs: 0.5, storageMs: 1 };
  const rest = { verbose: false, arbiter: { ...drawn.arbiter, lose: 0 }, faults: [], healMs: strikeUntilMs, disk };
  return outside(() => {
    const world = new World(seed, checkers, { plan: { ...drawn, ...rest } });
    const told = new Set<string>();
    const look = () => {
      const isJoining = world.b.node?.secondary?.pair.state.kind === 'joining';
      const isDue = seed % 2 === 0 || world.a.node?.primary?.pair.state.kind === 'protected';
      world.b.folder[how] = isJoining && isDue && world.schedule.now < strikeUntilMs;
      const [why] = /b was lost: [^;]*/.exec(world.a.node?.primary?.why ?? '') ?? [];
      if (why !== undefined) told.add(why);
    };
    for (let at = 1; at < strikeUntilMs + 100; at += 0.25) world.schedule.at(at, look);
    world.run();
    assert.equal(world.violation, undefined, `seed ${seed}`);
    return [...told];
  });
}

for (const flush of ['local', 'replicated'] as const)
  for (const how of ['full', 'failing'] as const)
    test(`a secondary whose disk is ${how} during the initial copy says so (flush ${flush})`, async () => {
      let count = 0;
      for (let seed = 1; seed <= 10; seed += 1)
        for (const reason of await reasons(seed, how, flush)) {
          assert.match(reason, /^b was lost: it says: .*(full|ENOSPC|EIO)/, `seed ${seed}`);
          count += 1;
        }
      assert.ok(count > 0, 'it was never lost');
    });
