// Real pairs under KVM, with the bare guest: its clients' TCP connections, one of which makes the copies diverge again
// and again, live through a planned failover and through every death, in both modes; RAM is compared after each apply
// (`verify`), and the guest finds nothing wrong with its pages and its disk.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import type { SpecInput } from '../../src/config/spec.ts';
import type { FaultKind } from '../../src/demo/faults.ts';
import { expectSoundGuest } from '../failover/bare-status.ts';
import {
  checkpoint,
  expectClients,
  expectOneVoice,
  handOver,
  protect,
  type Stage,
  served,
  setStage,
  strike,
  survives,
} from '../failover/stage.ts';
import { kvmRefusal } from './kvm.ts';

const skip = await kvmRefusal();
const disks = mkdtempSync(join(tmpdir(), 'colo-kvm-disks-'));
after(() => rmSync(disks, { recursive: true, force: true }));
const answerTimeoutMs = 180_000;

type Machine = NonNullable<SpecInput['machine']>;

async function stageOf(mode: 'colo' | 'remus', machine: Machine, withDisk = false): Promise<Stage> {
  const folder = mkdtempSync(join(disks, 'disk-'));
  const path = join(folder, 'disk.raw');
  writeFileSync(path, '');
  truncateSync(path, 8 << 20);
  return setStage({
    ...{ vm: 'kvm', guest: 'bare', protect: { mode }, machine: { accel: 'kvm', ...machine } },
    replicaFolder: join(folder, 'replicas'),
    disks: withDisk ? [{ path, format: 'raw' }] : [],
  });
}

const cases: [mode: 'colo' | 'remus', fault: FaultKind, machine: Machine, withDisk?: boolean][] = [
  ['colo', 'primary-kill', { type: 'microvm' }, true],
  ['colo', 'primary-stop', { type: 'microvm' }],
  ['colo', 'primary-kill', { type: 'pc' }],
  ['colo', 'primary-kill', { type: 'q35', vcpus: 2 }],
  ['remus', 'primary-kill', { type: 'microvm' }, true],
  ['remus', 'primary-stop', { type: 'microvm' }],
];

for (const [mode, fault, machine, withDisk = false] of cases)
  test(`${mode} under KVM on ${machine.type}, ${fault}: streams are exact and one node speaks`, { skip }, async () => {
    const stage = await stageOf(mode, machine, withDisk);
    try {
      await protect(stage);
      await served(stage, 5);
      await checkpoint(stage);
      await served(stage, 5);
      const { survivor, wake } = await strike(stage, fault);
      await survives(stage, survivor);
      await served(stage, 5);
      wake();
      await expectSoundGuest(stage, withDisk);
      await expectClients(stage);
      expectOneVoice(stage);
    } finally {
      await stage.close();
    }
  });

for (const mode of ['colo', 'remus'] as const)
  test(`${mode} under KVM: a planned failover and one back, and no client notices`, { skip }, async () => {
    const stage = await stageOf(mode, { type: 'microvm' });
    try {
      await protect(stage);
      await served(stage, 5);
      await survives(stage, await handOver(stage));
      await served(stage, 5);
      await survives(stage, await handOver(stage));
      await expectSoundGuest(stage);
      await expectClients(stage);
      expectOneVoice(stage);
    } finally {
      await stage.close();
    }
  });

test('colo under KVM: two copies that answer differently diverge, and the client gets the answers of one', {
  skip,
}, async () => {
  const stage = await stageOf('colo', { type: 'microvm' });
  try {
    await protect(stage);
    await served(stage, 5);
    const all = await stage.pair.until('a divergence is told', answerTimeoutMs, (seen) =>
      seen.some((one) => one.role === 'primary' && (one.divergences?.length ?? 0) > 0),
    );
    const primary = all.find((one) => one.role === 'primary');
    assert.ok(
      primary?.divergences?.some((one) => /:13\b/.test(one.connection)),
      'not of the times service',
    );
    await expectClients(stage);
    expectOneVoice(stage);
  } finally {
    await stage.close();
  }
});
