// Faults from outside, in both modes: what is killed, stopped or hung, the clients' connections live, replies are exact,
// and one node speaks at a time. `verify` is on: after every apply the RAM of both sides is compared.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { callNode, nodeStatus } from '../../src/api/client.ts';
import { type FaultKind, inject, survivorOf } from '../../src/demo/faults.ts';
import { protect, type Stage, served, setStage, survives, voices } from './stage.ts';

async function expectClients(stage: Stage): Promise<void> {
  for (const report of await stage.finish()) assert.equal(report.ok, true, `${report.name}: ${report.detail}`);
}

const cases: [mode: 'colo' | 'remus', fault: FaultKind][] = [
  ['colo', 'primary-kill'],
  ['colo', 'primary-qemu-kill'],
  ['colo', 'primary-stop'],
  ['colo', 'secondary-kill'],
  ['remus', 'primary-kill'],
  ['remus', 'primary-stop'],
  ['remus', 'secondary-kill'],
];

for (const [mode, fault] of cases)
  test(`${mode}, ${fault}: no connection is lost and one node speaks`, async () => {
    const stage = await setStage({ vm: 'faults', protect: { mode } });
    try {
      await protect(stage);
      await served(stage, 20);
      const injected = await inject(fault, stage.pair, () => 0);
      await survives(stage, survivorOf(fault));
      await served(stage, 20);
      injected.wake();
      if (fault === 'primary-stop')
        await stage.pair.until('a secondary again', 60_000, (all) =>
          all.some((one) => one.node === 'a' && one.role === 'secondary'),
        );
      await expectClients(stage);
      assert.equal(voices(stage).length, survivorOf(fault) === 'b' ? 2 : 1);
    } finally {
      await stage.close();
    }
  });

for (const [name, machine] of [
  ['pc', { type: 'pc' }],
  ['microvm', { type: 'microvm' }],
  ['q35 with two vCPUs', { vcpus: 2 }],
] as const)
  test(`${name}: checkpoints under load, and a takeover`, async () => {
    const stage = await setStage({ vm: 'machines', protect: { mode: 'colo' }, machine });
    try {
      await protect(stage);
      for (let count = 0; count < 3; count += 1) {
        await served(stage, 20);
        await stage.checkpoint();
      }
      await inject('primary-kill', stage.pair, () => 0);
      await survives(stage, 'b');
      await expectClients(stage);
      assert.equal(voices(stage).length, 2);
    } finally {
      await stage.close();
    }
  });

test('a QEMU of the primary that hangs is given up, and the secondary takes over', async () => {
  const stage = await setStage({ vm: 'faults', protect: { mode: 'colo' } });
  try {
    await protect(stage);
    await served(stage, 20);
    process.kill(await stage.pair.a.findQemu(), 'SIGSTOP');
    await survives(stage, 'b');
    await expectClients(stage);
    assert.equal(voices(stage).length, 2);
  } finally {
    await stage.close();
  }
});

test('a QEMU of the secondary that hangs is given up: the primary goes on alone, and is protected again', async () => {
  const stage = await setStage({ vm: 'faults', protect: { mode: 'colo' } });
  try {
    await protect(stage);
    await served(stage, 20);
    const hung = (await stage.pair.b?.findQemu()) ?? 0;
    process.kill(hung, 'SIGSTOP');
    await survives(stage, 'a');
    await served(stage, 20);
    const all = await stage.pair.until('protected by another QEMU', 60_000, (statuses) =>
      statuses.some((one) => one.node === 'b' && one.protected && one.qemuPid !== hung),
    );
    assert.equal(all.find((one) => one.node === 'a')?.role, 'primary');
    await expectClients(stage);
    assert.equal(voices(stage).length, 1);
  } finally {
    await stage.close();
  }
});

test('a secondary whose QEMU hangs does not take the term from a primary that only stood still', async () => {
  const stage = await setStage({ vm: 'faults', protect: { mode: 'colo' } });
  try {
    await protect(stage);
    await served(stage, 20);
    process.kill((await stage.pair.b?.findQemu()) ?? 0, 'SIGSTOP');
    const { a } = stage.pair;
    a.signal('SIGSTOP');
    await stage.pair.until('b suspects', 60_000, (all) =>
      all.some((one) => one.node === 'b' && one.state === 'suspecting'),
    );
    a.signal('SIGCONT');
    await survives(stage, 'a');
    await expectClients(stage);
    assert.equal(voices(stage).length, 1);
  } finally {
    await stage.close();
  }
});

test('a planned failover moves the VM without a client noticing', async () => {
  const stage = await setStage({ vm: 'faults', protect: { mode: 'colo' } });
  try {
    await protect(stage);
    await served(stage, 20);
    await callNode({ socketPath: stage.pair.a.apiPath, method: 'POST', path: '/failover' });
    await survives(stage, 'b');
    await expectClients(stage);
    assert.equal(voices(stage).length, 2);
  } finally {
    await stage.close();
  }
});

test('in colo mode the RAM of both sides is equal after every apply, whatever the secondary wrote itself', async () => {
  const stage = await setStage({ vm: 'faults', protect: { mode: 'colo' } });
  try {
    await protect(stage);
    for (let count = 0; count < 8; count += 1) {
      await served(stage, 20);
      await stage.checkpoint();
    }
    const [a, b] = await Promise.all([nodeStatus(stage.pair.a.apiPath), nodeStatus(stage.pair.b?.apiPath ?? '')]);
    // An apply whose RAM differs makes the secondary leave.
    assert.equal(a.state, 'protected');
    assert.equal(b.state, 'protected');
    assert.ok(a.epoch >= 9);
    await expectClients(stage);
  } finally {
    await stage.close();
  }
});
