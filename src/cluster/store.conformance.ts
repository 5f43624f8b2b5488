// What every store must do, run by each implementation's test with its own way to open one.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { delay } from '../base/clock.ts';
import { ColoError, errorCodes } from '../base/errors.ts';
import { valueBytesMax } from './limits.ts';
import type { Store } from './store.ts';

export interface Place {
  /** Another node's store of the same registry. */
  open(): Promise<Store>;
  /** Removes all that was made. */
  end(): Promise<void>;
}

const livesMs = 300_000;

/** Declares the suite for the implementation called `name`; `start` makes an empty registry. */
export function storeConformance(name: string, start: () => Promise<Place>): void {
  const within = (title: string, body: (place: Place, store: Store) => Promise<void>): void => {
    test(`${name}: ${title}`, async () => {
      const place = await start();
      try {
        const store = await place.open();
        await body(place, store);
        await store.close();
      } finally {
        await place.end();
      }
    });
  };
  const revisionOf = async (store: Store, key: string) =>
    (await store.list()).find((entry) => entry.key === key)?.revision ?? 0;

  within('what was changed is in every listing of everybody', async (place, store) => {
    const other = await place.open();
    assert.deepEqual(await store.list(), []);
    assert.equal(await store.change('vms/web', 0, 'one'), true);
    const [entry] = await other.list();
    assert.equal(entry?.key, 'vms/web');
    assert.equal(entry.value, 'one');
    assert.equal(await other.change('vms/web', entry.revision, 'two'), true);
    assert.equal((await store.list())[0]?.value, 'two');
    await other.close();
  });

  within('a change from an old revision, or of an entry that is there already, is not made', async (_, store) => {
    await store.change('vms/web', 0, 'one');
    const first = await revisionOf(store, 'vms/web');
    assert.equal(await store.change('vms/web', 0, 'again'), false);
    await store.change('vms/web', first, 'two');
    assert.equal(await store.change('vms/web', first, 'three'), false);
    assert.equal(await store.change('vms/other', first, 'never there'), false);
    assert.deepEqual(
      (await store.list()).map((entry) => entry.value),
      ['two'],
    );
  });

  within('a revision is never used twice, also when the entry was removed in between', async (_, store) => {
    await store.change('vms/web', 0, 'one');
    const first = await revisionOf(store, 'vms/web');
    assert.equal(await store.change('vms/web', first, null), true);
    assert.equal(await store.change('vms/web', first, null), false);
    await store.change('vms/web', 0, 'another');
    assert.ok((await revisionOf(store, 'vms/web')) > first);
    assert.equal(await store.change('vms/web', first, 'late'), false);
  });

  within('of concurrent changes from one revision exactly one is made', async (place) => {
    const stores = await Promise.all(Array.from({ length: 6 }, () => place.open()));
    const results = await Promise.all(stores.map((one, index) => one.change('placements/web', 0, `of ${index}`)));
    assert.equal(results.filter(Boolean).length, 1);
    for (const one of stores) await one.close();
  });

  within(
    'what is announced is there while it is announced again, and vanishes when it is not',
    async (place, store) => {
      const other = await place.open();
      const values = async () => (await other.list()).map((entry) => entry.value);
      // What is looked at lives for longer than any starved host makes this wait.
      await store.announce('nodes/left', 'up', livesMs);
      await store.announce('nodes/left', 'up and well', livesMs);
      assert.deepEqual(await values(), ['up and well']);
      await store.withdraw('nodes/left');
      assert.deepEqual(await values(), []);
      const dying = await place.open();
      await dying.announce('nodes/left', 'once', 2000);
      for (let tries = 0; (await values()).length > 0; tries += 1) {
        assert.ok(tries < 2400, 'it is still there');
        await delay(50);
      }
      await store.announce('nodes/left', 'back', livesMs);
      assert.deepEqual(await values(), ['back']);
      await store.withdraw('nodes/left');
      for (const one of [dying, other]) await one.close();
    },
  );

  within('keys that are none and values that are too large are refused as bad input', async (_, store) => {
    const refused = (error: unknown): boolean => error instanceof ColoError && error.code === errorCodes.input;
    const change = (key: string, value: string) => store.change(key, 0, value);
    for (const key of ['', 'vms', 'vms/', '/vms/a', 'vms/../a', 'vms/a/b', 'VMS/a', `vms/${'x'.repeat(64)}`, 'vms/ä'])
      await assert.rejects(change(key, ''), refused);
    await assert.rejects(change('vms/large', 'x'.repeat(valueBytesMax + 1)), refused);
    await change('vms/large', 'x'.repeat(valueBytesMax));
    assert.equal((await store.list())[0]?.value.length, valueBytesMax);
  });
}
