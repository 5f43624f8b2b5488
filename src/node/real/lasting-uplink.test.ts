// An uplink that goes away comes back, and says what is wrong meanwhile.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Clock, systemClock } from '../../base/clock.ts';
import type { Uplink } from '../../netdev/endpoint.ts';
import type { FrameHandlers } from '../../netdev/frame-socket.ts';
import { LastingUplink } from './lasting-uplink.ts';

const clock: Clock = { ...systemClock, after: (_, action) => systemClock.after(1, action) };
const counters = { framesIn: 1, bytesIn: 60, framesOut: 2, bytesOut: 120 };

test('an uplink that is gone is opened again as often as it takes, counts on, and says what is wrong meanwhile', async () => {
  const opened: FrameHandlers[] = [];
  const sent: number[] = [];
  let closedTold = 0;
  const back = Promise.withResolvers<void>();
  const openOne = async (handlers: FrameHandlers): Promise<Uplink> => {
    const index = opened.push(handlers);
    if (index === 2) throw new Error('the bridge is not there yet');
    if (index === 3) {
      assert.equal(lasting.problem, 'the bridge is not there yet');
      queueMicrotask(back.resolve);
    }
    const nothing = () => undefined;
    const progress = { taken: 0, settled: 0, lost: 0 };
    // One of each two frames that one of them is given is written.
    const send = (): void => {
      sent.push(index);
      progress.taken += 1;
      if (progress.taken > 1) return;
      progress.settled += 1;
      handlers.settled?.();
    };
    const face = { pause: nothing, resume: nothing, close: nothing, problem: '', counters };
    return { ...face, send, progress, unwritten: () => [] };
  };
  const handlers = { frame: () => undefined, closed: () => void (closedTold += 1), maySend: () => true };
  const lasting = await LastingUplink.open(openOne, handlers, clock);
  assert.equal(opened[0]?.maySend?.(), true);
  lasting.send(new Uint8Array(60));
  lasting.send(new Uint8Array(60));
  const { progress } = lasting;
  assert.deepEqual(progress, { taken: 2, settled: 1, lost: 0 });
  opened[0]?.closed();
  assert.deepEqual(progress, { taken: 2, settled: 2, lost: 1 });
  assert.match(lasting.problem, /gone/);
  lasting.send(new Uint8Array(60));
  assert.deepEqual(progress, { taken: 3, settled: 3, lost: 2 });
  await back.promise;
  await new Promise(setImmediate);
  assert.equal(lasting.problem, '');
  lasting.send(new Uint8Array(60));
  assert.deepEqual(sent, [1, 1, 3]);
  assert.deepEqual(progress, { taken: 4, settled: 4, lost: 2 });
  assert.equal(closedTold, 1);
  assert.deepEqual(lasting.counters, { framesIn: 2, bytesIn: 120, framesOut: 4, bytesOut: 240 });
  lasting.close();
  opened[2]?.closed();
  assert.equal(closedTold, 1, 'what was closed on purpose is not missed');
});

test('an uplink that cannot be opened the first time is an error', async () => {
  const openOne = () => Promise.reject(new Error('no such bridge'));
  await assert.rejects(
    LastingUplink.open(openOne, { frame: () => undefined, closed: () => undefined }),
    /no such bridge/,
  );
});
