// What is done about a QEMU that fails what it is asked: whether it lives is asked first, and its end waited for.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { ColoError, errorCodes } from '../base/errors.ts';
import { handClock } from '../base/hand-clock.ts';
import { endHeardMs } from './limits.ts';
import { assertWell, describeEnd, endHeard, troubleOf } from './vm-watch.ts';

async function isDone(task: Promise<void>): Promise<boolean> {
  const { promise: later, resolve } = Promise.withResolvers<boolean>();
  void turn().then(() => resolve(false));
  return Promise.race([task.then(() => true), later]);
}

const never = new Promise<never>(() => undefined);
const gone = () => Promise.reject(new ColoError(errorCodes.qemu, 'QEMU closed the monitor connection.'));

test('the failure of a QEMU that is gone is dealt with when its end has been heard, and not before', async () => {
  const { promise: exited, resolve: exit } = Promise.withResolvers<{ code: null; signal: string }>();
  const order: string[] = [];
  void exited.then(() => order.push('its end'));
  const heard = endHeard({ ping: gone, exited }, handClock());
  void heard.then(() => order.push('the failure'));
  assert.equal(await isDone(heard), false);
  exit({ code: null, signal: 'SIGKILL' });
  await heard;
  assert.deepEqual(order, ['its end', 'the failure']);
});

test('the failure of a QEMU that lives is dealt with at once', async () => {
  await endHeard({ ping: async () => undefined, exited: never }, handClock());
});

test('an end that nobody hears of is not waited for longer than its bound', async () => {
  const clock = handClock();
  const heard = endHeard({ ping: gone, exited: never }, clock);
  assert.equal(await isDone(heard), false);
  for (let ms = 0; ms < endHeardMs; ms += 50) clock.move(50);
  await heard;
});

test('an end that came while this node stood still is heard before it counts as unheard', async () => {
  const clock = handClock();
  const { promise: exited, resolve: exit } = Promise.withResolvers<{ code: null; signal: string }>();
  const heard = endHeard({ ping: gone, exited }, clock);
  assert.equal(await isDone(heard), false);
  clock.move(10 * endHeardMs);
  assert.equal(await isDone(heard), false);
  exit({ code: null, signal: 'SIGKILL' });
  await heard;
});

test('a VM is over when its guest shut down, and only then', () => {
  assert.equal(describeEnd({ code: 0, signal: null }).byGuest, true);
  assert.equal(describeEnd({ code: 0, signal: null, byHost: true }).byGuest, false);
  assert.equal(describeEnd({ code: 1, signal: null }).byGuest, false);
  assert.equal(describeEnd({ code: null, signal: 'SIGKILL' }).byGuest, false);
  const stderr = "a warning\nqemu-system-x86_64: it is so: Assertion `never' failed.\n";
  assert.match(describeEnd({ code: null, signal: 'SIGABRT', stderr }).why, /SIGABRT\): qemu.*Assertion `never' failed/);
  assert.doesNotMatch(describeEnd({ code: 0, signal: null, stderr }).why, /Assertion/);
});

test('a machine that does not run is no copy, and one that stands is not asked to run', async () => {
  const asleep = { runState: 'suspended', faults: [] };
  assert.match(troubleOf(asleep, 'runs') ?? '', /does not run \(suspended\)/);
  assert.equal(troubleOf(asleep, 'stands'), undefined);
  assert.equal(troubleOf({ runState: 'running', faults: [] }, 'runs'), undefined);
  await assert.rejects(assertWell({ condition: () => Promise.resolve(asleep) }, 'runs'), { code: 'COLO_E_MACHINE' });
});

test('a device that lost its rings is a trouble, whether the machine runs or not', () => {
  const broken = { runState: 'running', faults: ['the device virtio-net is broken'] };
  for (const how of ['runs', 'stands'] as const) assert.match(troubleOf(broken, how) ?? '', /virtio-net is broken/);
});
