// A VM with a disk on three hosts, network namespaces each with its own folder for the disk: two hosts die one after
// the other, and PostgreSQL in the guest has every transfer that it acknowledged. Needs root.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { buildDiskGuest, copyDisk } from '../../guest/disk/build.ts';
import type { NodeStatus } from '../../src/api/node-status.ts';
import { delay, systemClock } from '../../src/base/clock.ts';
import { checkSpec } from '../../src/config/spec.ts';
import { audit, openBank, Teller } from '../../src/demo/bank/bank.ts';
import { consoleSays } from '../../src/demo/console.ts';
import { clusterPackages, ensurePackages } from '../../src/host/packages.ts';
import { labRefusal } from '../../src/lab/lab.ts';
import { LocalCluster } from '../../src/lab/vm-nodes.ts';

const refusal = await labRefusal();
const skip = refusal === undefined ? {} : { skip: refusal };
const timeoutMs = 240_000;

test('hosts die with their images one after the other: the guest keeps its disk and every transfer', skip, async () => {
  await ensurePackages(clusterPackages, { why: 'test several hosts' });
  const guest = await buildDiskGuest();
  const folder = mkdtempSync(join(tmpdir(), 'colo-hosts-disk-'));
  const path = join(folder, 'disk.raw');
  await copyDisk(guest, path);
  const spec = checkSpec(
    {
      ...{ vm: 'hosts-disk', boot: { guest: 'demo' }, machine: { memory: '320M' } },
      disks: [{ path, format: 'raw' }],
      replicaFolder: join(folder, 'replica'),
    },
    'the test',
  );
  const boot = { kernel: guest.kernel, initrd: guest.initrd, cmdline: guest.cmdline };
  const cluster = await LocalCluster.start({ spec, boot, hosts: 3, clock: systemClock });
  try {
    await consoleSays(cluster.node('h1'), { text: 'colo-guest ready', path: cluster.serialLog('h1'), timeoutMs });
    const host = spec.network.address;
    const port = guest.ports.postgres;
    await openBank(port, host);
    await cluster.startCandidates();
    const nodeOf = (all: NodeStatus[], role: string) => all.find((one) => one.role === role && one.protected)?.node;
    // By role: a starved host may have turned them round.
    const roles = async () => {
      const all = await cluster.until('protected', timeoutMs, (seen) =>
        ['primary', 'secondary'].every((role) => nodeOf(seen, role) !== undefined),
      );
      return { primary: nodeOf(all, 'primary') ?? '', heir: nodeOf(all, 'secondary') ?? '' };
    };
    const teller = await Teller.start(port, { number: 0, seed: 1, paceMs: 10, host }, systemClock);
    const writesOn = async () => {
      const before = teller.acknowledged.length;
      const end = systemClock.now() + timeoutMs;
      while (teller.acknowledged.length < before + 20 && systemClock.now() < end) await delay(50, systemClock);
      assert.ok(teller.acknowledged.length >= before + 20, 'the database does not answer');
    };
    for (let count = 0; count < 2; count += 1) {
      await roles();
      await writesOn();
      const { primary, heir } = await roles();
      await cluster.killHost(primary);
      await cluster.until(`taken over by ${heir}`, timeoutMs, (all) =>
        all.some((one) => one.node === heir && one.role === 'primary'),
      );
      await writesOn();
      if (count === 0) await cluster.restartHost(primary);
    }
    const report = await teller.finish(120_000);
    assert.ok(report.ok, report.detail);
    assert.deepEqual((await audit(port, [teller], host)).problems, []);
  } finally {
    await cluster.stop();
    rmSync(folder, { recursive: true });
  }
});
