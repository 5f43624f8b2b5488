// A node that dies at every phase of a checkpoint and of a takeover: the other goes on, every client keeps its
// connection and gets every reply, and one node speaks at a time. Real QEMU, real guest, SIGKILL by the node itself at
// the named point (node/context.ts).

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { FaultPoint } from '../../src/node/context.ts';
import { protect, setStage, survives, voices } from './stage.ts';

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

for (const point of primaryPoints)
  test(`the primary dies at ${point}: the secondary carries every connection on`, async () => {
    const stage = await setStage({ vm: 'phase-primary', dieAt: { node: 'a', point, epoch: 3 } });
    try {
      await protect(stage);
      // The point is reached by checkpoints; the one it is reached in is never answered.
      await assert.rejects(async () => {
        for (let count = 0; count < 10; count += 1) await stage.checkpoint();
      });
      await survives(stage, 'b');
      const reports = await stage.finish();
      for (const report of reports) assert.equal(report.ok, true, `${report.name}: ${report.detail}`);
      assert.equal(new Set(voices(stage)).size, 2);
      assert.equal(voices(stage).length, 2, 'the dead primary never spoke again');
    } finally {
      await stage.close();
    }
  });

for (const point of secondaryPoints)
  test(`the secondary dies at ${point}: the primary goes on alone`, async () => {
    const stage = await setStage({ vm: 'phase-secondary', dieAt: { node: 'b', point, epoch: 3 } });
    try {
      await protect(stage);
      await assert.rejects(async () => {
        for (let count = 0; count < 10; count += 1) await stage.checkpoint();
      });
      await survives(stage, 'a');
      const reports = await stage.finish();
      for (const report of reports) assert.equal(report.ok, true, `${report.name}: ${report.detail}`);
      assert.equal(voices(stage).length, 1);
    } finally {
      await stage.close();
    }
  });

test('the primary dies during the first copy, before any checkpoint: the secondary does not take over', async () => {
  const stage = await setStage({ vm: 'phase-copy', dieAt: { node: 'a', point: 'round.sent', epoch: 1 } });
  try {
    await stage.pair.startSecondary();
    const statuses = await stage.pair.until('without a primary', 60_000, (all) =>
      all.every((one) => one.node === 'b' && one.state === 'idle' && one.why !== 'no primary yet'),
    );
    assert.equal(
      statuses.some((one) => one.role === 'primary'),
      false,
    );
  } finally {
    await stage.close();
  }
});
