// Signals, the end of a host, and what may fail at a takeover, on real processes: clients keep their connections, and
// only the operator's stop ends the VM.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { test } from 'node:test';
import { nodeStatus } from '../../src/api/node-client.ts';
import {
  expectClients,
  expectOneVoice,
  hold,
  type NodeName,
  nodeOf,
  protect,
  roles,
  type Stage,
  served,
  setStage,
  strike,
  survives,
} from './stage.ts';

const signals = ['SIGTERM', 'SIGINT', 'SIGHUP'] as const;

/** As systemd ends a host: every process of it is sent the signal at once. */
async function shutDown(stage: Stage, name: NodeName, signal: NodeJS.Signals): Promise<void> {
  const node = nodeOf(stage, name);
  const signalQemu = await node.holdQemu();
  node.signal(signal);
  signalQemu(signal);
  await node.exited;
}

for (const mode of ['colo', 'remus'] as const)
  test(`${mode}: each host in turn is shut down and comes back, and no client notices`, async () => {
    const stage = await setStage({ vm: 'ends', protect: { mode } });
    try {
      await protect(stage);
      for (const signal of signals) {
        await served(stage, 20);
        const { primary, secondary } = await roles(stage);
        await shutDown(stage, primary, signal);
        await survives(stage, secondary);
        await stage.pair.restart(primary);
        await roles(stage);
      }
      const { primary, secondary } = await roles(stage);
      await shutDown(stage, secondary, 'SIGTERM');
      await survives(stage, primary);
      await served(stage, 20);
      await expectClients(stage);
      expectOneVoice(stage);
    } finally {
      await stage.close();
    }
  });

test('who has the only copy stays whatever signal it and its QEMU are sent, says so, and ends when its operator stops it', async () => {
  const stage = await setStage({ vm: 'ends', protect: { mode: 'colo' } });
  try {
    const { a } = stage.pair;
    const signalQemu = await a.holdQemu();
    for (const signal of signals) {
      a.signal(signal);
      signalQemu(signal);
    }
    await served(stage, 20);
    await stage.pair.until('told', 30_000, (all) =>
      all.some(({ problems = [] }) => /told to end/.test(problems.join())),
    );
    // With somebody to hand it to, it goes.
    await stage.pair.startSecondary();
    await a.exited;
    await survives(stage, 'b');
    const b = nodeOf(stage, 'b');
    b.signal('SIGTERM');
    await expectClients(stage);
    const { qemuPid } = await nodeStatus(b.apiPath);
    await b.stop();
    assert.ok(qemuPid !== null && !existsSync(`/proc/${qemuPid}`));
  } finally {
    await stage.close();
  }
});

test('a pcap folder that is not there costs no takeover, and the status names it', async () => {
  const stage = await setStage({ vm: 'ends', protect: { mode: 'colo' }, pcap: '/proc/no/such/folder' });
  try {
    await protect(stage);
    await served(stage, 20);
    const { survivor } = await strike(stage, 'primary-kill');
    await survives(stage, survivor);
    await served(stage, 20);
    await stage.pair.until('told', 30_000, (all) =>
      all.some(({ node, problems = [] }) => node === survivor && /network\.pcap/.test(problems.join())),
    );
    await expectClients(stage);
    expectOneVoice(stage);
  } finally {
    await stage.close();
  }
});

test('the QEMU of a protected primary does not hear a signal: its node is the one to be told', async () => {
  const stage = await setStage({ vm: 'ends', protect: { mode: 'colo' } });
  try {
    await protect(stage);
    const { node, signalQemu, qemuPid, term } = await hold(stage, 'primary');
    for (const signal of signals) signalQemu(signal);
    node.signal('SIGCONT');
    await served(stage, 20);
    assert.ok(existsSync(`/proc/${qemuPid}`), `QEMU runs on, in term ${term} or a later one`);
    await expectClients(stage);
    expectOneVoice(stage);
  } finally {
    await stage.close();
  }
});
