// A node that dies, stands still or loses its QEMU at a phase of a checkpoint: the other goes on, every client keeps
// its connection and gets every reply, and one node speaks at a time. Real QEMU, real guest, struck at the named point
// (node/fault-points.ts). All kinds at all points, in both modes: test/soak/phases.test.ts. Points of a takeover:
// held.ts.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { faultPoints } from '../../src/node/fault-points.ts';
import { expectOneVoice, nodeOf, setStage } from './stage.ts';
import { pointsOf, strikes } from './strikes.ts';

for (const [role, promise] of [
  ['primary', 'the secondary carries every connection on'],
  ['secondary', 'the primary goes on alone'],
] as const)
  test(`the ${role} dies at each point of a checkpoint: ${promise}`, (context) =>
    strikes(context, {
      ...{ vm: `phase-${role}`, mode: 'colo' },
      faults: pointsOf(role).map((point) => ['killed', point] as const),
    }));

test('a node stands still at a point of a checkpoint, is woken or not, or loses its QEMU: the other one goes on', (context) =>
  strikes(context, {
    ...{ vm: 'phase-other', mode: 'colo' },
    faults: [
      ['stopped', 'send.half'],
      ['stopped', 'apply.written'],
      ['stopped, woken', 'capture.stopped'],
      ['stopped, woken', 'commit.received'],
      ['stopped, woken', 'commit.sent'],
      ['QEMU killed', 'capture.stopped'],
      ['QEMU killed', 'send.done'],
      ['QEMU killed', 'apply.written'],
    ],
  }));

for (const point of pointsOf('beginning'))
  test(`the primary dies at ${point}, before any checkpoint: the secondary does not take over`, async () => {
    const stage = await setStage({ vm: 'phase-copy', protect: { mode: 'colo' } });
    try {
      stage.pair.arm('a', { point, epoch: 0, hold: false });
      await stage.pair.startSecondary();
      await nodeOf(stage, 'a').exited;
      const statuses = await stage.pair.until('without a primary', 120_000, (all) =>
        all.some((one) => one.node === 'b' && one.state === 'idle' && one.why !== 'no primary yet'),
      );
      assert.deepEqual(
        statuses.map(({ node, role }) => `${node} ${role}`),
        ['b secondary'],
      );
      assert.deepEqual(stage.pair.owners.turns, ['a']);
      expectOneVoice(stage);
    } finally {
      await stage.close();
    }
  });

test('the points that are struck on real QEMU are all points there are', () => {
  const struck = pointsOf('beginning', 'primary', 'secondary', 'takeover');
  assert.deepEqual(struck.toSorted(), [...faultPoints].toSorted());
});
