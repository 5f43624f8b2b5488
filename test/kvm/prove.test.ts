// `colo doctor --prove` in small, under each accelerator that runs here: it holds, and says what it saw and what not.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { systemClock } from '../../src/base/clock.ts';
import { prove } from '../../src/demo/prove/prove.ts';
import { kvmRefusal } from './kvm.ts';

for (const accel of ['kvm', 'tcg'] as const)
  test(`the proof holds under ${accel}`, { skip: accel === 'kvm' && (await kvmRefusal()) }, async () => {
    const said: string[] = [];
    const proof = await prove({
      ...{ accel, captures: 5, loads: 3, clock: systemClock, signal: new AbortController().signal },
      say: (line) => void said.push(line),
    });
    assert.deepEqual(proof.problems, []);
    assert.ok(proof.ok && proof.captures.changedPages > 0 && proof.loads.exact === 3 && proof.failovers[0]?.ok);
    assert.equal(proof.host.accel, accel);
    assert.ok(proof.seen.some((what) => what.startsWith('every page')));
    assert.ok(proof.notSeen.some((what) => what.includes('hugetlbfs')));
    assert.equal(proof.loads.clocks.kvmclock !== undefined, accel === 'kvm');
    for (const name of ['tsc', 'pmTimer', 'hpet', 'lapic', 'pit'] as const) assert.ok(proof.loads.clocks[name], name);
    assert.ok(said.length > 2);
  });
