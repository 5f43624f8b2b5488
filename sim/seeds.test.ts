// Seeds that once failed hold, for ever. Each file of seeds/ says which sentence was violated and why; it keeps its
// plan too, so that it goes on meaning the same when plans are drawn in another way.

import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { outside } from './world/outside.ts';
import type { DrawnPlan } from './world/plan.ts';
import { report, runSeed } from './world/run.ts';

interface KeptSeed {
  seed: number;
  checker: string;
  why: string;
  plan: DrawnPlan;
}

const folder = join(import.meta.dirname, 'seeds');
const kept = readdirSync(folder)
  .filter((name) => name.endsWith('.json'))
  .map((name) => JSON.parse(readFileSync(join(folder, name), 'utf8')) as KeptSeed);

test('there are seeds to run', () => assert.ok(kept.length > 0));

for (const { seed, checker, why, plan } of kept) {
  test(`seed ${seed} holds (it violated ${checker}: ${why})`, async () => {
    const outcome = await outside(() => runSeed(seed, { plan }));
    assert.equal(outcome.violation, undefined, report(outcome));
  });
}
