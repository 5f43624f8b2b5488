// The proof is told as it came out: what failed is no success, and what was not seen is not called seen.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Proof, whatWasSeen } from '../demo/prove/prove.ts';
import { formatProof } from './prove.ts';

const times = { count: 1, p50: 1.5, p99: 2.5, max: 3 };
const held: Omit<Proof, 'seen' | 'notSeen'> = {
  ok: true,
  problems: [],
  host: {
    ...{ qemu: '7.2.22', kernel: '6.18', processor: 'A processor', cores: 2, accel: 'kvm', accelWhy: 'it runs' },
    ...{ kvm: { module: 'kvm_intel', hasNestedPaging: true }, tracker: 'userfaultfd', ring: 0 },
  },
  readyMs: 900,
  captures: {
    ...{ captures: 200, changedPages: 4000, listedPages: 4100, missedPages: 0, wrongPages: 0 },
    ...{ pauseMs: times, problems: [] },
  },
  slowDown: {
    ...{ poolPages: 16_384, writtenPages: 1000 },
    ...{ readMs: { afterCapture: times, again: times }, writeMs: { afterCapture: times, again: times } },
  },
  loads: {
    ...{ loads: 50, exact: 50, loadMs: times, stateBytes: 59_000, problems: [] },
    clocks: { tsc: { lagMs: times, apartMs: times, openMs: 0.2 } },
  },
  several: {
    vcpus: 2,
    captures: {
      captures: 10,
      changedPages: 9,
      listedPages: 9,
      missedPages: 0,
      wrongPages: 0,
      pauseMs: times,
      problems: [],
    },
    loads: {
      loads: 10,
      exact: 10,
      loadMs: times,
      stateBytes: 1,
      problems: [],
      clocks: { tsc: { lagMs: times, apartMs: times, openMs: 0.2 } },
    },
  },
  failovers: [
    {
      ...{ guest: 'bare', ok: true, problems: [], vcpus: 1, checkpoints: 9, pauseMs: { p50: 2, p99: 3 } },
      ...{ detectMs: 30, takeoverMs: 20, gapMsMax: 90, downloadMibPerSecond: 2, clients: [] },
    },
  ],
};
const proofOf = (changes: Partial<typeof held>): Proof => {
  const proof = { ...held, ...changes };
  return { ...proof, ...whatWasSeen(proof) };
};

test('a proof that held names what was seen and what was not', () => {
  const text = formatProof(proofOf({})).join('\n');
  assert.match(text, /^PROVEN under KVM/m);
  assert.match(text, /^seen +write tracking with nested paging/m);
  assert.match(text, /^not seen +interrupts after a load/m);
  assert.match(text, /0 of 4000 changed pages missed/);
});

test('Linux through a failover is what shows interrupts, several running vCPUs in the bare guest what shows those', () => {
  const [bare] = held.failovers;
  assert.ok(bare !== undefined);
  const linux = { ...bare, guest: 'demo' as const, vcpus: 2 };
  const { seen } = proofOf({ failovers: [bare, linux] });
  assert.ok(seen.some((what) => what.startsWith('interrupts')) && seen.some((what) => what.startsWith('more than')));
  const failed = proofOf({ failovers: [bare, { ...linux, ok: false }] });
  assert.ok(failed.notSeen.some((what) => what.startsWith('interrupts')));
  const one = proofOf({ several: { ...held.several, vcpus: 1 } });
  assert.ok(one.notSeen.some((what) => what.startsWith('more than')));
});

test('what went wrong is the verdict, and is not called seen', () => {
  const problems = ['capture 3: pages 0x1000 changed and were not listed'];
  const proof = proofOf({ ok: false, problems, captures: { ...held.captures, missedPages: 1, problems } });
  const text = formatProof(proof).join('\n');
  assert.match(text, /^FAILED:\n {2}capture 3/m);
  assert.doesNotMatch(text, /PROVEN/);
  assert.ok(proof.notSeen.some((what) => what.startsWith('every page')));
  assert.ok(proof.notSeen.some((what) => what.startsWith('write tracking with nested paging')));
});

test('under TCG nothing is said to have been seen under KVM', () => {
  const { seen } = proofOf({ host: { ...held.host, accel: 'tcg' } });
  assert.ok(seen.length > 0 && seen.every((what) => !what.includes('KVM') && !what.includes('nested')));
});
