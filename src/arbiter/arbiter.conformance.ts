// What every arbiter must do, run by each implementation's test with its own way to open one.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ColoError, errorCodes } from '../base/errors.ts';
import { seededRandom } from '../base/random.ts';
import type { Arbiter, ClaimResult, TermRecord } from './arbiter.ts';

export interface Cluster {
  /** Another node's arbiter of the same cluster. */
  open(): Promise<Arbiter>;
  /** Removes all that was made. */
  end(): Promise<void>;
}

const pair = { owner: 'left', peer: 'right' };

/** Declares the suite for the implementation called `name`; `start` makes an empty cluster. */
export function arbiterConformance(name: string, start: () => Promise<Cluster>): void {
  const within = (title: string, body: (cluster: Cluster, arbiter: Arbiter) => Promise<void>): void => {
    test(`${name}: ${title}`, async () => {
      const cluster = await start();
      try {
        const arbiter = await cluster.open();
        await body(cluster, arbiter);
        await arbiter.close();
      } finally {
        await cluster.end();
      }
    });
  };

  within('a VM without a record has none, and its first term is 1', async (_, arbiter) => {
    assert.equal(await arbiter.read('guest'), undefined);
    const record: TermRecord = { term: 1, ...pair };
    assert.deepEqual(await arbiter.claim('guest', 0, pair), { won: true, record });
    assert.deepEqual(await arbiter.read('guest'), record);
    assert.equal(await arbiter.read('other'), undefined);
  });

  within('terms grow by one, through takeover and a new pair', async (cluster, left) => {
    const right = await cluster.open();
    await left.claim('guest', 0, pair);
    await right.claim('guest', 1, { owner: 'right', peer: null });
    const third = await right.claim('guest', 2, { owner: 'right', peer: 'left' });
    assert.deepEqual(third, { won: true, record: { term: 3, owner: 'right', peer: 'left' } });
    assert.deepEqual(await left.read('guest'), third.record);
  });

  within('a claim from an old or a future term loses and learns the newest', async (_, arbiter) => {
    await arbiter.claim('guest', 0, pair);
    await arbiter.claim('guest', 1, { owner: 'right', peer: null });
    const newest: TermRecord = { term: 2, owner: 'right', peer: null };
    for (const expected of [0, 1, 3, 50]) {
      const result = await arbiter.claim('guest', expected, { owner: 'left', peer: null });
      assert.deepEqual(result, { won: false, record: newest });
    }
  });

  within('repeating a claim that won says won again', async (_, arbiter) => {
    await arbiter.claim('guest', 0, pair);
    const first = await arbiter.claim('guest', 1, { owner: 'right', peer: null });
    assert.deepEqual(await arbiter.claim('guest', 1, { owner: 'right', peer: null }), first);
    await arbiter.claim('guest', 2, pair);
    const late = await arbiter.claim('guest', 1, { owner: 'right', peer: null });
    assert.equal(late.won, false);
  });

  within('of concurrent claimers exactly one wins, and all learn the same record', async (cluster) => {
    const nodes = await Promise.all(Array.from({ length: 8 }, () => cluster.open()));
    for (let term = 0; term < 10; term += 1) {
      const results = await Promise.all(
        nodes.map((node, index) => node.claim('guest', term, { owner: `node-${index}`, peer: null })),
      );
      assert.equal(results.filter((result) => result.won).length, 1);
      for (const result of results) assert.deepEqual(result.record, results[0]?.record);
    }
  });

  within('what one node reads never gets older while others claim', async (cluster, reader) => {
    const random = seededRandom(1);
    const nodes = await Promise.all(['left', 'right'].map(() => cluster.open()));
    const work = nodes.map(async (node, index) => {
      for (let step = 0; step < 30; step += 1) {
        const known = (await node.read('guest'))?.term ?? 0;
        const expected = random() < 0.2 ? Math.max(0, known - 1) : known;
        await node.claim('guest', expected, { owner: `node-${index}`, peer: null });
      }
    });
    let ended = false;
    const writers = Promise.all(work).then(() => {
      ended = true;
    });
    let term = 0;
    while (!ended) {
      const read = (await reader.read('guest'))?.term ?? 0;
      assert.ok(read >= term, `${read} after ${term}`);
      term = read;
      await new Promise(setImmediate);
    }
    await writers;
    assert.ok(((await reader.read('guest'))?.term ?? 0) > 10);
  });

  within(
    'a probe goes well where a claim would, with and without a record, and makes no term',
    async (cluster, arbiter) => {
      await arbiter.probe('guest');
      assert.equal(await arbiter.read('guest'), undefined);
      await arbiter.claim('guest', 0, pair);
      const other = await cluster.open();
      for (let time = 0; time < 20; time += 1) await Promise.all([arbiter.probe('guest'), other.probe('guest')]);
      assert.deepEqual(await arbiter.read('guest'), { term: 1, ...pair });
      assert.equal((await other.claim('guest', 1, { owner: 'right', peer: null })).won, true);
      await other.close();
    },
  );

  within('VMs do not touch each other', async (_, arbiter) => {
    await arbiter.claim('guest', 0, pair);
    await arbiter.claim('guest-1', 0, { owner: 'right', peer: null });
    assert.equal((await arbiter.read('guest'))?.owner, 'left');
    assert.equal((await arbiter.read('guest-1'))?.owner, 'right');
  });

  within('names that are none are refused as bad input', async (_, arbiter) => {
    const bad: string[] = ['', '.', '..', '../guest', 'a/b', 'a.term-1', 'a\0', '-x', 'x'.repeat(64), 'ä'];
    const refused = (error: unknown): boolean => error instanceof ColoError && error.code === errorCodes.input;
    for (const name of bad) {
      await assert.rejects(arbiter.read(name), refused);
      await assert.rejects(arbiter.probe(name), refused);
      await assert.rejects(arbiter.claim(name, 0, pair), refused);
      await assert.rejects(arbiter.claim('guest', 0, { owner: name, peer: null }), refused);
      await assert.rejects(arbiter.claim('guest', 0, { owner: 'left', peer: name }), refused);
    }
  });

  within('a term that the arbiter has never seen is an error, not a win', async (_, arbiter) => {
    const claim: Promise<ClaimResult> = arbiter.claim('guest', 5, pair);
    await assert.rejects(claim, (error) => error instanceof ColoError && error.code === errorCodes.arbiter);
    assert.equal(await arbiter.read('guest'), undefined);
  });
}
