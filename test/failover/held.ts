// A takeover that stands still half-way, with the old primary awake again meanwhile: the worst moment for two voices.
// And one that ends half-way, for ever: then nobody may speak who is not the owner of the term, although a whole VM is
// awake.

import assert from 'node:assert/strict';
import type { FaultPoint, Strike } from '../../src/node/fault-points.ts';
import { untilAnswered } from './ask.ts';
import {
  expectClients,
  expectOneVoice,
  hold,
  nodeOf,
  protect,
  roles,
  type Stage,
  setStage,
  survives,
  voices,
} from './stage.ts';

/** Stops the primary of a protected VM, whose heir ends, or stands still, as `strike` says. */
async function stopPrimary(stage: Stage, strike: Strike) {
  for (;;) {
    const { primary, secondary, node, signalQemu } = await hold(stage, 'primary');
    const heir = nodeOf(stage, secondary);
    const signalHeirsQemu = await heir.holdQemu().catch(() => undefined);
    stage.pair.arm(secondary, strike);
    // It has not claimed the term yet: so it was armed in time.
    if (signalHeirsQemu !== undefined && stage.pair.owners.turns.at(-1) === primary) {
      signalQemu('SIGSTOP');
      const wake = () => {
        signalQemu('SIGCONT');
        node.signal('SIGCONT');
      };
      return { survivor: secondary, struck: primary, heir, signalHeirsQemu, wake };
    }
    stage.pair.disarm(secondary);
    // It took over before it was armed, and may have met the point all the same.
    heir.signal('SIGCONT');
    node.signal('SIGCONT');
  }
}

/** The old primary is stopped, the survivor stops itself at `point`, the old one wakes, then the survivor. */
export async function heldTakeover(point: FaultPoint): Promise<void> {
  const stage = await setStage({ vm: 'held', protect: { mode: 'colo' } });
  try {
    await protect(stage);
    const { heir, survivor, struck, wake } = await stopPrimary(stage, { point, epoch: 0, hold: true });
    await stage.pair.until('the survivor stands still', 120_000, () => heir.isStopped());
    wake();
    await stage.pair.until('the old primary has lost the term', 120_000, (all) =>
      all.some((one) => one.node === struck && one.role === 'secondary'),
    );
    heir.signal('SIGCONT');
    await survives(stage, survivor);
    await roles(stage);
    await expectClients(stage);
    expectOneVoice(stage);
  } finally {
    for (const node of stage.pair.nodes) node.signal('SIGCONT');
    await stage.close();
  }
}

/**
 * The old primary is stopped, the survivor dies at `point`, or loses its QEMU there, the old one wakes: its copy is
 * whole, but the term is not its own any more, and what the dead one has said nobody knows. So it gives up its copy and
 * stays silent. The VM's memory is lost with the second node; the service comes back when the owner of the term does,
 * and boots the guest anew.
 */
export async function killedTakeover(point: FaultPoint, what: 'node' | 'QEMU'): Promise<void> {
  const stage = await setStage({ vm: 'held', protect: { mode: 'colo' } });
  try {
    await protect(stage);
    const { heir, signalHeirsQemu, survivor, struck, wake } = await stopPrimary(stage, {
      point,
      epoch: 0,
      hold: what === 'QEMU',
    });
    const before = voices(stage);
    if (what === 'QEMU') {
      await stage.pair.until('the survivor stands still', 120_000, () => heir.isStopped());
      signalHeirsQemu('SIGKILL');
      heir.signal('SIGCONT');
    } else await heir.exited;
    wake();
    await stage.pair.until('the old primary has given up its copy', 120_000, (all) =>
      all.some((one) => one.node === struck && one.role === 'secondary' && one.qemuPid === null),
    );
    for (const client of stage.clients) client.abort();
    await heir.kill();
    await stage.pair.restart(survivor);
    await stage.pair.until('protected again', 180_000, (all) =>
      all.some((one) => one.node === survivor && one.role === 'primary' && one.protected),
    );
    await untilAnswered(stage.ports.redis);
    // The old primary never spoke again. The survivor may have, at two ports: before its end was heard, and when it was
    // back.
    const since = voices(stage).slice(before.length);
    assert.ok(
      since.length > 0 && !since.includes(before.at(-1) ?? 0),
      `${before.join(', ')}, then ${since.join(', ')}`,
    );
  } finally {
    await stage.close();
  }
}
