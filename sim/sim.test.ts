// The simulation itself: it holds, it repeats, and time in it is its own.

import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { checkers } from './world/checkers.ts';
import { runSeeds } from './world/crowd.ts';
import { outside } from './world/outside.ts';
import { report, runSeed } from './world/run.ts';
import { Schedule } from './world/schedule.ts';
import { World } from './world/world.ts';

test('events run in the order of their time, and promises run out between two of them', async () => {
  const seen = await outside(() => {
    const schedule = new Schedule();
    const order: string[] = [];
    const chain = async () => {
      for (let depth = 0; depth < 20; depth += 1) await Promise.resolve();
      order.push('promise');
    };
    schedule.at(2, () => order.push('second'));
    schedule.at(1, () => void chain());
    schedule.at(2, () => order.push('third'));
    schedule.at(1.5, () => order.push('between'));
    while (schedule.step(10));
    return { order, now: schedule.now };
  });
  assert.deepEqual(seen, { order: ['promise', 'between', 'second', 'third'], now: 10 });
});

test('the same seed gives the same run, line by line', async () => {
  for (const seed of [3, 11, 58]) {
    const lines: string[][] = [[], []];
    for (const into of lines) await outside(() => runSeed(seed, { write: (line) => into.push(line) }));
    assert.ok((lines[0]?.length ?? 0) > 400);
    assert.deepEqual(lines[0], lines[1]);
    const brief = await outside(() => [runSeed(seed).traceHash, runSeed(seed).traceHash]);
    assert.equal(brief[0], brief[1]);
  }
});

test('different seeds give different runs', async () => {
  const hashes = await outside(() => [1, 2, 3, 4].map((seed) => runSeed(seed).traceHash));
  assert.equal(new Set(hashes).size, 4);
});

test('twenty seeds hold, on all cores', async () => {
  const failures: string[] = [];
  const seeds: number[] = [];
  let answered = 0;
  await runSeeds({ first: 1, count: 20 }, (outcome) => {
    seeds.push(outcome.seed);
    answered += outcome.answered;
    if (outcome.violation !== undefined) failures.push(report(outcome));
    return 'go on';
  });
  assert.deepEqual(failures, []);
  assert.equal(seeds.length, 20);
  assert.ok(answered > 500, 'the clients were answered');
});

test('every file of checker/ is a checker of its name with one sentence', async () => {
  const files = readdirSync(join(import.meta.dirname, 'checker'));
  assert.deepEqual(files.sort(), checkers.map(({ name }) => `${name}.ts`).sort());
  const world = await outside(() => new World(1, []));
  for (const { name, sentence, make } of checkers) {
    const checker = make(world);
    assert.deepEqual({ name: checker.name, sentence: checker.sentence }, { name, sentence });
  }
});
