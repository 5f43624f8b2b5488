// The disks of a survivor: whatever they do, the guest goes on, and they become its own when they answer.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Clock, systemClock } from '../../base/clock.ts';
import { silentLog } from '../../base/log.ts';
import { Troubles } from '../troubles.ts';
import { KeptDisks } from './kept-disks.ts';

/** Every wait is over at once. */
const clock: Clock = { ...systemClock, after: (_, action) => systemClock.after(1, action) };

function keep(labelled: Promise<boolean>, keepDisks: () => Promise<void>) {
  const troubles = new Troubles(silentLog);
  const exited = Promise.withResolvers<{ code: number | null; signal: string | null }>();
  const kept = new KeptDisks({ clock }, { vm: { keepDisks, exited: exited.promise }, labelled, troubles });
  return { kept, troubles, exited };
}

test('a disk that hangs keeps no survivor from going on, and is labelled and folded when it answers', async () => {
  const label = Promise.withResolvers<boolean>();
  let overlaysKept = 0;
  const { kept, troubles } = keep(label.promise, async () => void (overlaysKept += 1));
  await kept.settled();
  assert.match(troubles.lines.join(), /does not answer/);
  assert.equal(overlaysKept, 0, 'QEMU is not asked to reopen what hangs: it would hang with it');
  label.resolve(true);
  assert.equal(await kept.mayFold, true);
  assert.equal(overlaysKept, 1);
  assert.deepEqual(troubles.lines, []);
});

test('a QEMU that refuses to keep the overlays is asked again, and only then are they folded', async () => {
  let tries = 0;
  const { kept, troubles } = keep(Promise.resolve(true), async () => {
    tries += 1;
    if (tries < 4) throw new Error('blockdev-reopen failed');
    assert.match(troubles.lines.join(), /does not reach its disk: blockdev-reopen failed/);
  });
  await kept.settled();
  assert.equal(await kept.mayFold, true);
  assert.equal(tries, 4);
  assert.deepEqual(troubles.lines, []);
});

test('a replica that cannot be labelled is never folded into, its overlays are kept, and it is said', async () => {
  let overlaysKept = 0;
  const { kept, troubles } = keep(Promise.resolve(false), async () => void (overlaysKept += 1));
  await kept.settled();
  assert.equal(await kept.mayFold, false);
  assert.equal(overlaysKept, 1);
  assert.match(troubles.lines.join(), /cannot be labelled/);
});

test('a VM that has ended is asked nothing more', async () => {
  let tries = 0;
  const { kept, exited } = keep(Promise.resolve(true), () => {
    tries += 1;
    if (tries === 2) exited.resolve({ code: 0, signal: null });
    return Promise.reject(new Error('gone'));
  });
  await kept.mayFold;
  assert.ok(tries >= 2);
});
