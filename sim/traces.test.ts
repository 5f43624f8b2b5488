// A seed means the same run wherever it runs: nothing of the process, and nothing of the seeds before it, takes part.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ask, compare, home, type TraceOf, traceOf } from './traces.ts';
import { outside } from './world/outside.ts';
import { runSeed } from './world/run.ts';

const seeds = [901_999, 7_700_964, 904_060, 3];
const others = Array.from({ length: 100 }, (_, index) => ({ seed: 600_001 + index }));

test('a seed has the same trace alone, after a hundred others, and in another process', async () => {
  const wanted = seeds.map((seed) => ({ seed }));
  const inProcess = (request: { seed: number }[]) => ask<TraceOf>({ checkout: home, wanted: request, lines: false });
  const alone = await Promise.all(wanted.map((one) => inProcess([one])));
  const after = (await inProcess([...others, ...wanted])).slice(others.length);
  const here = await outside(() => wanted.map((one) => traceOf(runSeed, one)));
  assert.deepEqual(after, alone.flat());
  assert.deepEqual(here, alone.flat());
  assert.equal(new Set(here.map(({ hash }) => hash)).size, seeds.length);
});

test('a checkout has the traces of itself', async () => {
  assert.deepEqual(await compare(home, [{ seed: 5 }, { seed: 6 }]), []);
});
