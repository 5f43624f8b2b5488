// What the network said to a secondary while its primary was silent is heard by the guest when it is taken over; what
// it said long before is not (found in seed 904060: a SYN of two seconds before opened a connection of which nobody
// knew).

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { earlyMs } from '../src/node/limits.ts';
import { outside } from './world/outside.ts';
import { drawPlan } from './world/plan.ts';
import { Random } from './world/random.ts';
import { World } from './world/world.ts';

const killAtMs = 2500;
const broadcast = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
const experimental = 0x88b5;

/** Nobody answers it, and both nodes see it. */
function marked(mark: number): Uint8Array {
  const frame = Buffer.alloc(60);
  frame.set([...broadcast, 2, 0, 0, 0, 9, 9]);
  frame.writeUInt16BE(experimental, 12);
  frame[14] = mark;
  return frame;
}

/** Which of the marked frames, heard at these times, the guest hears when its primary has died. */
function heardAtTakeover(seed: number, times: readonly number[]): Promise<Set<number>> {
  const drawn = drawPlan(seed, new Random(seed));
  const wide = { delayMs: 1, lose: 0, double: 0, overtake: 0 };
  const rest = { wide, arbiter: { ...drawn.arbiter, lose: 0 }, clients: [], callsEveryMs: undefined, faults: [] };
  return outside(() => {
    const world = new World(seed, [], { plan: { ...drawn, ...rest, disk: undefined, healMs: 4000 } });
    const heard = new Set<number>();
    for (const [mark, at] of times.entries()) world.schedule.at(at, () => world.network.fromClients(marked(mark)));
    world.schedule.at(killAtMs, () => {
      const guest = world.b.vm?.guest;
      assert.ok(guest !== undefined);
      guest.frame = (frame) => void (frame[12] === experimental >> 8 && heard.add(frame[14] ?? 0));
      world.a.kill('host');
    });
    world.run();
    assert.equal(world.record?.owner, 'b');
    return heard;
  });
}

test('at a takeover the guest hears what the network said meanwhile, and nothing that is older', async () => {
  for (const seed of [1, 2, 3]) {
    assert.deepEqual(await heardAtTakeover(seed, [killAtMs - 20, killAtMs + 30]), new Set([0, 1]), `seed ${seed}`);
    // Nothing comes after it that would make the node look for what is old.
    assert.deepEqual(await heardAtTakeover(seed, [killAtMs - earlyMs]), new Set(), `seed ${seed}`);
  }
});
