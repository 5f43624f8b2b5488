// A secondary whose disk hangs costs the protection and nothing else: its primary hears why, goes on alone, and
// protects again when that disk answers. Whole nodes, in both modes and with both kinds of flushing, under the clock of
// the simulation.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { diskLookMs, diskSilentLooks } from '../src/node/limits.ts';
import { outside } from './world/outside.ts';
import { drawPlan } from './world/plan.ts';
import { Random } from './world/random.ts';
import { World } from './world/world.ts';

const hangAtMs = 1500;
const noticedAtMs = hangAtMs + diskSilentLooks * diskLookMs + 1500;
const answersAtMs = noticedAtMs + 4000;
const healMs = answersAtMs + 6000;

interface Seen {
  answers: number;
  why: string;
  problem: string;
  isProtected: boolean;
}

/**
 * Node a, the primary, when the disk of node b has hung for longer than it may, some time later, and when it answers
 * again.
 */
function primaryAround(seed: number, mode: 'colo' | 'remus', flush: 'local' | 'replicated'): Promise<Seen[]> {
  const drawn = drawPlan(seed, new Random(seed));
  const disk = { sectors: 14, flush, writeMs: 0.3, storageMs: 0.3 };
  const client = { thinkMs: 100, diverge: 0, long: 0, datagrams: 0, requests: 500, reuse: 0, pipeline: false };
  const plan = {
    ...{ ...drawn, protect: { ...drawn.protect, mode }, disk, clients: [client], faults: [], healMs },
    arbiter: { ...drawn.arbiter, lose: 0 },
  };
  return outside(() => {
    const world = new World(seed, [], { plan });
    const seen: Seen[] = [];
    const look = () => {
      const status = world.a.node?.status();
      seen.push({
        answers: world.clients.reduce((sum, { answered }) => sum + answered, 0),
        why: status?.why ?? '',
        problem: status?.disks?.problem ?? '',
        isProtected: status?.state === 'protected',
      });
    };
    world.schedule.at(hangAtMs, () => world.b.folder.hang());
    world.schedule.at(noticedAtMs, look);
    world.schedule.at(answersAtMs, () => {
      look();
      world.b.folder.answer();
    });
    world.schedule.at(healMs, look);
    world.run();
    return seen;
  });
}

test('a secondary whose disk hangs is dropped with that for the reason: the guest goes on, and is protected again when it answers', async () => {
  for (const mode of ['colo', 'remus'] as const)
    for (const flush of ['local', 'replicated'] as const)
      for (const seed of [1]) {
        const [dropped, later, healed] = await primaryAround(seed, mode, flush);
        const where = `seed ${seed}, ${mode}, ${flush}: ${JSON.stringify([dropped, later, healed])}`;
        assert.ok(dropped !== undefined && later !== undefined && healed !== undefined, where);
        assert.ok(!dropped.isProtected && !later.isProtected, where);
        assert.match(dropped.problem, /has not answered for 10 s/, where);
        assert.match(dropped.why, /has not answered for 10 s/, where);
        assert.ok(later.answers > dropped.answers + 10, `the guest answers on: ${where}`);
        assert.ok(healed.isProtected, where);
      }
});
