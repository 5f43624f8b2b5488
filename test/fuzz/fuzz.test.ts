// A short run of the fuzzer on every target: all kept inputs, and some hundred new ones.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { fuzz } from './fuzz.ts';
import { closeTargets, targets } from './targets.ts';

after(closeTargets);

const count: Record<string, number> = {
  ...{ frames: 250, api: 60, qmp: 250, 'qmp-replies': 200, service: 60, handlers: 400 },
  ...{ state: 400, template: 40, records: 200, etcd: 30, 'nbd-client': 100 },
};

for (const target of targets)
  test(`no input of ${target.name} breaks a promise`, async () => {
    const { missed } = await fuzz(target, { seed: 1, count: count[target.name] ?? 1500, keep: false });
    assert.deepEqual(missed, [], 'what the target is to reach, and does not');
  });

test('an input that breaks a promise is kept, and named', async () => {
  const broken = { name: 'none', seeds: [Uint8Array.of(1)], reaches: [], feed: () => assert.fail('a bug') };
  const { rmSync } = await import('node:fs');
  try {
    await assert.rejects(fuzz(broken, { seed: 1, count: 1, keep: false }), /kept in .*failed-/);
  } finally {
    rmSync(new URL('corpus/none', import.meta.url), { recursive: true, force: true });
  }
});

test('a target that does not reach what it is to try is told', async () => {
  const shallow = { name: 'none', seeds: [Uint8Array.of(1)], reaches: [/deep/, /shallow/], feed: () => 'shallow' };
  assert.deepEqual((await fuzz(shallow, { seed: 1, count: 5, keep: false })).missed, ['/deep/']);
});
