// What the nodes of a protected pair say of themselves is what the API's schema says that they do: no field is missing,
// and none is left out that the OpenAPI document would then not show.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { z } from 'zod';
import { type NodeStatus, nodeStatusSchema } from '../src/api/node-status.ts';
import { checkers } from './world/checkers.ts';
import { outside } from './world/outside.ts';
import { drawPlan } from './world/plan.ts';
import { Random } from './world/random.ts';
import { World } from './world/world.ts';

const declared = z.object(nodeStatusSchema.shape);

function statusesOf(seed: number, hasDisk: boolean): Promise<NodeStatus[]> {
  const drawn = drawPlan(seed, new Random(seed));
  assert.ok(!hasDisk || drawn.disk !== undefined, `seed ${seed} draws no disk`);
  const protect = { ...drawn.protect, mode: 'colo' as const, verify: true };
  return outside(() => {
    const made = checkers.map(({ make }) => make);
    const world = new World(seed, made, { plan: { ...drawn, faults: [], protect } });
    world.run();
    assert.equal(world.violation, undefined);
    return world.nodes.map(({ node }) => node?.status()).filter((status) => status !== undefined);
  });
}

for (const [seed, hasDisk] of [
  [1, false],
  [2, true],
] as const)
  test(`the API's schema knows every field that a protected pair ${hasDisk ? 'with disks ' : ''}says`, async () => {
    const statuses = await statusesOf(seed, hasDisk);
    assert.deepEqual(statuses.map(({ role }) => role).sort(), ['primary', 'secondary']);
    for (const status of statuses) {
      const said = JSON.parse(JSON.stringify(status)) as NodeStatus;
      assert.ok(said.protected);
      assert.ok((said.links ?? []).length === 3 && said.heartbeat !== undefined && said.arbiter === null);
      assert.equal(said.disks !== null, hasDisk);
      assert.deepEqual(declared.parse(said), said);
    }
  });
