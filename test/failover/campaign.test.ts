// A few faults of the campaign; the whole of it is test/soak/campaign.test.ts.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { seededRandom } from '../../src/base/random.ts';
import { kvmRefusal } from '../kvm/kvm.ts';
import { campaign, deal } from './campaign.ts';

test('faults are dealt from a seed: each kind once before any comes again', () => {
  const kinds = ['first', 'second', 'third'];
  const dealt = (seed: number) => {
    const from = deal(kinds, seededRandom(seed));
    return Array.from({ length: 9 }, () => from.next().value);
  };
  for (const at of [0, 3, 6])
    assert.deepEqual(
      dealt(1)
        .slice(at, at + 3)
        .sort(),
      kinds,
    );
  assert.deepEqual(dealt(1), dealt(1));
  assert.notDeepEqual(dealt(1), dealt(2));
});

const few = [
  ...['primary node killed', 'a byte of a link damaged', 'links stalled', 'disk of logs and consoles hangs: both'],
  ...["disk of the VM's image full", "disk of the VM's replica hangs"],
];

test('faults in a row: no connection is lost, no reply is wrong or missing, one node speaks', async (context) =>
  campaign(context, {
    ...{ vm: 'short-campaign', mode: 'colo', guest: 'bare', count: 7, seed: 7, only: few },
    accel: (await kvmRefusal()) === false ? 'kvm' : 'tcg',
  }));
