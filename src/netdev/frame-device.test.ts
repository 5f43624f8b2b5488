// Reading frames from a device, in both ways that Node allows, with a socket pair as the device.

import assert from 'node:assert/strict';
import { closeSync, writeSync } from 'node:fs';
import { test } from 'node:test';
import { openSocketPair } from '../base/descriptors.ts';
import { readDevice } from './frame-device.ts';

for (const polled of [false, true])
  test(`frames of a device arrive, and its end is heard once (${polled ? 'read now and then' : 'polled by Node'})`, async () => {
    const [device, far] = openSocketPair();
    const heard: string[] = [];
    const ended = Promise.withResolvers<void>();
    let wake = Promise.withResolvers<void>();
    const reader = await readDevice(
      device,
      {
        frame: (frame) => {
          heard.push(Buffer.from(frame).toString());
          wake.resolve();
        },
        closed: () => ended.resolve(),
      },
      { polled },
    );
    assert.equal(reader.polled, polled);
    for (const text of ['one', 'two']) {
      wake = Promise.withResolvers<void>();
      writeSync(far, text);
      await wake.promise;
    }
    assert.deepEqual(heard, ['one', 'two']);
    closeSync(far);
    await ended.promise;
    reader.close();
    closeSync(device);
  });

test('Node of this machine can be made to poll a device', async () => {
  const [device, far] = openSocketPair();
  const reader = await readDevice(device, { frame: () => undefined, closed: () => undefined });
  assert.equal(reader.polled, false);
  reader.close();
  closeSync(device);
  closeSync(far);
});
