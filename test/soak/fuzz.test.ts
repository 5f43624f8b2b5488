// A long run of the fuzzer on every target: COLO_FUZZ (default 200,000) inputs each, from COLO_SEED on. Inputs of which
// something new came are added to test/fuzz/corpus; so are those that broke a promise.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { fuzz } from '../fuzz/fuzz.ts';
import { closeTargets, targets } from '../fuzz/targets.ts';

after(closeTargets);

const total = Number(process.env['COLO_FUZZ'] ?? '200000');
/** What one input costs, compared with the cheap ones. */
const cost: Record<string, number> = {
  ...{ frames: 20, api: 100, qmp: 20, 'qmp-replies': 40, spec: 10, service: 400, 'guest-stream': 4, addresses: 4 },
  ...{ state: 20, template: 200, records: 50, etcd: 400, 'nbd-client': 50, handlers: 100 },
};

for (const target of targets)
  test(`no input of ${target.name} breaks a promise`, async (context) => {
    const count = Math.ceil(total / (cost[target.name] ?? 1));
    const result = await fuzz(target, { seed: Number(process.env['COLO_SEED'] ?? '1'), count, keep: true });
    context.diagnostic(`${target.name}: ${result.fed} inputs, ${result.heard} outcomes, ${result.kept} kept`);
    assert.deepEqual(result.missed, [], 'what the target is to reach, and does not');
  });
