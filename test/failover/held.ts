// A takeover that stands still half-way, with the old primary awake again meanwhile: the worst moment for two voices.

import assert from 'node:assert/strict';
import { inject } from '../../src/demo/faults.ts';
import type { FaultPoint } from '../../src/node/context.ts';
import { protect, setStage, survives, voices } from './stage.ts';

/** The old primary is stopped, the survivor stops itself at `point`, the old one wakes, then the survivor. */
export async function heldTakeover(point: FaultPoint): Promise<void> {
  const dieAt = { node: 'b' as const, point, epoch: 0, hold: true };
  const stage = await setStage({ vm: 'held', protect: { mode: 'colo' }, dieAt });
  try {
    await protect(stage);
    const survivor = stage.pair.b;
    assert.ok(survivor);
    const stopped = await inject('primary-stop', stage.pair, () => 0);
    await stage.pair.until('b stands still', 60_000, () => survivor.isStopped());
    stopped.wake();
    await stage.pair.until('a has lost the term', 60_000, (all) =>
      all.some((one) => one.node === 'a' && one.role === 'secondary'),
    );
    survivor.signal('SIGCONT');
    await survives(stage, 'b');
    await stage.pair.until('protected again', 120_000, (all) =>
      all.some((one) => one.role === 'primary' && one.protected),
    );
    for (const report of await stage.finish()) assert.equal(report.ok, true, `${report.name}: ${report.detail}`);
    assert.equal(voices(stage).length, 2);
  } finally {
    stage.pair.b?.signal('SIGCONT');
    await stage.close();
  }
}
