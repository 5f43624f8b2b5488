// A takeover that stands still half-way, with the old primary awake again meanwhile: the worst moment for two voices. And one
// that ends half-way, for ever: then nobody may speak who is not the owner of the term, although a whole VM is awake.

import assert from 'node:assert/strict';
import { inject } from '../../src/demo/faults.ts';
import type { FaultPoint } from '../../src/node/context.ts';
import { untilAnswered } from './ask.ts';
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

/**
 * The old primary is stopped, the survivor dies at `point`, the old one wakes: its copy is whole, but the term is not its own
 * any more, and what the dead one has said nobody knows. So it gives up its copy and stays silent. The VM's memory is
 * lost with the second node; the service comes back when the owner of the term does, and boots the guest anew.
 */
export async function killedTakeover(point: FaultPoint): Promise<void> {
  const stage = await setStage({ vm: 'held', protect: { mode: 'colo' }, dieAt: { node: 'b', point, epoch: 0 } });
  try {
    await protect(stage);
    const survivor = stage.pair.b;
    assert.ok(survivor);
    const stopped = await inject('primary-stop', stage.pair, () => 0);
    await survivor.exited;
    stopped.wake();
    await stage.pair.until('a has given up its copy', 60_000, (all) =>
      all.some((one) => one.node === 'a' && one.role === 'secondary' && one.qemuPid === null),
    );
    for (const client of stage.clients) client.abort();
    await stage.pair.restart('b');
    await stage.pair.until('protected again', 120_000, (all) =>
      all.some((one) => one.node === 'b' && one.role === 'primary' && one.protected),
    );
    await untilAnswered(stage.ports.redis);
    assert.equal(voices(stage).length, 2, 'the old primary never spoke again');
  } finally {
    await stage.close();
  }
}
