// A guest whose own disk is full stands still, and goes on by itself when there is room again: on a primary, and on a
// survivor that ran into it while it was the secondary, so that nobody tells it of that any more.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { diskRetryMs } from '../src/node/limits.ts';
import { outside } from './world/outside.ts';
import { drawPlan } from './world/plan.ts';
import { Random } from './world/random.ts';
import { World } from './world/world.ts';

const fullAtMs = 1500;
const killAtMs = 2000;
const roomAtMs = 3500;
const healMs = roomAtMs + 2 * diskRetryMs + 500;

/**
 * How many answers there were just before there was room, and some time after; with node a's host dead for good or not.
 */
function answersAround(seed: number, { full, kill }: { full: 'a' | 'b'; kill: boolean }): Promise<[number, number]> {
  const drawn = drawPlan(seed, new Random(seed));
  const disk = { sectors: 14, flush: 'local', writeMs: 0.3, storageMs: 0.3 } as const;
  const client = { thinkMs: 8, diverge: 0, long: 0, datagrams: 0, requests: 30, reuse: 0, pipeline: false };
  const plan = { ...drawn, disk, clients: [client], arbiter: { ...drawn.arbiter, lose: 0 }, faults: [], healMs };
  return outside(() => {
    const world = new World(seed, [], { plan });
    const answers = () => world.clients.reduce((sum, { answered }) => sum + answered, 0);
    const seen: number[] = [];
    world.schedule.at(fullAtMs, () => Object.assign(world[full], { ownDiskFull: true }));
    if (kill) {
      world.a.startAgain = () => undefined;
      world.schedule.at(killAtMs, () => world.a.kill('host'));
    }
    world.schedule.at(roomAtMs, () => {
      seen.push(answers());
      world[full].ownDiskFull = false;
    });
    world.schedule.at(healMs, () => seen.push(answers()));
    world.run();
    const [before = 0, after = 0] = seen;
    return [before, after] as [number, number];
  });
}

test('a primary whose own disk was full goes on when there is room', async () => {
  for (const seed of [1, 2, 3]) {
    const [before, after] = await answersAround(seed, { full: 'a', kill: false });
    assert.ok(before > 0 && after > before + 5, `seed ${seed}: ${before} answers, then ${after}`);
  }
});

test('a survivor whose own disk was full before its takeover goes on when there is room', async () => {
  for (const seed of [1, 2, 3]) {
    const [before, after] = await answersAround(seed, { full: 'b', kill: true });
    assert.ok(before > 0 && after > before + 5, `seed ${seed}: ${before} answers, then ${after}`);
  }
});
