// A node that dies at every phase of a checkpoint and of a takeover: the other goes on, every client keeps its
// connection and gets every reply, and one node speaks at a time. Real QEMU, real guest, SIGKILL by the node itself at
// the named point (node/context.ts).

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { delay, systemClock } from '../../src/base/clock.ts';
import type { FaultPoint } from '../../src/node/context.ts';
import { expectClients, expectOneVoice, nodeOf, protect, roles, type Stage, setStage, survives } from './stage.ts';

const primaryPoints: FaultPoint[] = [
  'capture.stopped',
  'capture.done',
  'send.begun',
  'send.half',
  'send.done',
  'commit.received',
  'release.done',
  'compare.begun',
];

const secondaryPoints: FaultPoint[] = [
  'stage.complete',
  'commit.sent',
  'apply.stopped',
  'apply.written',
  'apply.loaded',
  'apply.done',
];

/** Lets the node of this role die at its point; the point is reached by checkpoints. Resolves to who must go on. */
async function dieAtItsPoint(stage: Stage, role: 'primary' | 'secondary'): Promise<'a' | 'b'> {
  const now = await roles(stage);
  const node = nodeOf(stage, now[role]);
  stage.pair.arm(now[role]);
  const deadline = systemClock.now() + 120_000;
  while (node.alive) {
    assert.ok(systemClock.now() < deadline, 'the point is not reached');
    // The one it is reached in is never answered.
    await stage.checkpointAt(now.primary).catch(() => delay(20));
  }
  return role === 'primary' ? now.secondary : now.primary;
}

for (const [role, points, promise] of [
  ['primary', primaryPoints, 'the secondary carries every connection on'],
  ['secondary', secondaryPoints, 'the primary goes on alone'],
] as const)
  for (const point of points)
    test(`the ${role} dies at ${point}: ${promise}`, async () => {
      const stage = await setStage({ vm: `phase-${role}`, dieAt: { point, epoch: 3 } });
      try {
        await protect(stage);
        const survivor = await dieAtItsPoint(stage, role);
        await survives(stage, survivor);
        assert.equal(stage.pair.owners.turns.at(-1), survivor);
        await expectClients(stage);
        // The dead primary never spoke again.
        expectOneVoice(stage);
      } finally {
        await stage.close();
      }
    });

test('the primary dies during the first copy, before any checkpoint: the secondary does not take over', async () => {
  const stage = await setStage({ vm: 'phase-copy', dieAt: { point: 'round.sent', epoch: 1 } });
  try {
    stage.pair.arm('a');
    await stage.pair.startSecondary();
    const statuses = await stage.pair.until('without a primary', 120_000, (all) =>
      all.some((one) => one.node === 'b' && one.state === 'idle' && one.why !== 'no primary yet'),
    );
    assert.deepEqual(
      statuses.map(({ node, role }) => `${node} ${role}`),
      ['b secondary'],
    );
    assert.deepEqual(stage.pair.owners.turns, ['a']);
  } finally {
    await stage.close();
  }
});
