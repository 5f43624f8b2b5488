// A disk that hangs is told from one that is slow, whatever else it answers meanwhile.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DiskActivity } from './disk-activity.ts';

test('a question without an answer is told once, after so many looks, whatever else is answered meanwhile', async () => {
  const activity = new DiskActivity();
  void activity.track('/disk', new Promise(() => undefined));
  for (let look = 1; look <= 9; look += 1) {
    assert.equal(await activity.track('/disk', Promise.resolve(look)), look);
    await assert.rejects(activity.track('/disk', Promise.reject(new Error('full'))), /full/);
    assert.equal(activity.look(5), look === 5 ? '/disk' : undefined, `look ${look}`);
  }
});

test('a disk that answers, however slowly, is not told', async () => {
  const activity = new DiskActivity();
  for (let operation = 0; operation < 10; operation += 1) {
    const { promise, resolve } = Promise.withResolvers<void>();
    const tracked = activity.track('/disk', promise);
    for (let look = 1; look < 5; look += 1) assert.equal(activity.look(5), undefined);
    resolve();
    await tracked;
  }
});
