// The bank, thirty times: the primary is killed at a random moment, and every acknowledged transfer is there exactly once.
// Each run names its seed, which repeats the moment and who pays whom: colo demo --disk --seed N.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { buildDiskGuest } from '../../guest/disk/build.ts';
import { systemClock } from '../../src/base/clock.ts';
import { runBankDemo } from '../../src/demo/bank-demo.ts';

const runs = 30;

for (let seed = 1; seed <= runs; seed += 1)
  test(`no acknowledged transfer is lost or doubled, kill ${seed}`, async () => {
    const report = await runBankDemo({
      ...{ mode: seed % 5 === 0 ? 'remus' : 'colo', fault: 'primary-kill', seconds: 20, verify: false, seed },
      ...{ flush: seed % 3 === 0 ? 'replicated' : 'local', reboot: true },
      guest: await buildDiskGuest(),
      clock: systemClock,
      signal: new AbortController().signal,
      say: () => undefined,
      show: () => undefined,
    });
    assert.deepEqual(report.problems, []);
  });
