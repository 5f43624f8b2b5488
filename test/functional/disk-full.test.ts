// Full disks under a protected VM. The primary's own: the guest waits, as it does without protection, the status says
// why, and it goes on by itself when there is room. The secondary's: the guest goes on without protection, which comes
// back with room. Real QEMU and PostgreSQL on a small file system. Needs root.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { buildDiskGuest, copyDisk } from '../../guest/disk/build.ts';
import { callNode } from '../../src/api/node-client.ts';
import { systemClock } from '../../src/base/clock.ts';
import { checkSpec } from '../../src/config/spec.ts';
import { Postgres } from '../../src/demo/bank/postgres.ts';
import { consoleSays } from '../../src/demo/console.ts';
import { freePorts } from '../../src/lan/gateway.ts';
import { LocalPair } from '../../src/local/pair.ts';

const skip = process.getuid?.() === 0 ? {} : { skip: 'needs root' };
const timeoutMs = 240_000;

interface Small {
  /** A small file system, as large as the disk's contents and 24 MiB. */
  small: string;
  sql: Postgres;
  pair: LocalPair;
}

/** A VM whose disk's file (`of: 'disk'`), or whose secondary's replica, lies on a small file system. */
async function withSmall(of: 'disk' | 'replica', body: (stage: Small) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'colo-full-'));
  const small = join(folder, 'small');
  mkdirSync(small);
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1G', 'colo-full', small]);
  let pair: LocalPair | undefined;
  try {
    const guest = await buildDiskGuest();
    const path = join(of === 'disk' ? small : folder, 'disk.raw');
    await copyDisk(guest, path);
    const usedMib = Math.ceil((statSync(path).blocks * 512) / 2 ** 20);
    execFileSync('mount', ['-o', `remount,size=${usedMib + 24}M`, small]);
    const spec = checkSpec(
      {
        ...{ vm: 'disk-full', boot: { guest: 'demo' }, machine: { memory: '320M' } },
        disks: [{ path, format: 'raw' }],
        replicaFolder: of === 'disk' ? join(folder, 'replica') : small,
      },
      'the test',
    );
    const [port = 0] = await freePorts(1);
    const forwards = [{ protocol: 'tcp' as const, hostPort: port, guestPort: guest.ports.postgres }];
    const boot = { kernel: guest.kernel, initrd: guest.initrd, cmdline: guest.cmdline };
    pair = await LocalPair.start({ spec, boot, forwards, clock: systemClock });
    await consoleSays(pair.a, { text: 'colo-guest ready', path: join(pair.logDir, 'a.serial'), timeoutMs });
    const sql = await Postgres.connect(port);
    await body({ small, sql, pair });
    sql.close();
  } finally {
    await pair?.stop();
    // QEMU may hold a file there for a moment longer when its node had to be killed.
    execFileSync('umount', ['-l', small]);
    rmSync(folder, { recursive: true });
  }
}

/** The text is random, so that nothing of it is a hole. */
const writeMuch = `CREATE TABLE large AS SELECT n, md5(n::text) || md5((n + 1)::text) AS text
  FROM generate_series(1, 300000) AS n; CHECKPOINT; SELECT count(*) FROM large`;
const makeRoom = (small: string) => execFileSync('mount', ['-o', 'remount,size=2G', small]);

test('a guest whose own disk is full waits, the status says why, and with room it goes on by itself', skip, () =>
  withSmall('disk', async ({ small, sql, pair }) => {
    const answer = sql.query(writeMuch);
    answer.catch(() => undefined);
    const isFull = await pair.until('told that the disk is full', timeoutMs, (all) =>
      all.some((one) => /no room for .*the guest waits/.test(one.disks?.problem ?? '')),
    );
    assert.equal(isFull.length, 1);
    makeRoom(small);
    await pair.until('over it', timeoutMs, (all) => all.some((one) => one.disks?.problem === ''));
    assert.deepEqual((await answer).rows, [['300000']]);
  }),
);

test(
  'a secondary whose disk is full costs the protection, says so, and with room protects the guest that went on',
  skip,
  () =>
    withSmall('replica', async ({ small, sql, pair }) => {
      const isProtected = () =>
        pair.until('protected', timeoutMs, (all) => all.some((one) => one.role === 'primary' && one.protected));
      await pair.startSecondary();
      await isProtected();
      assert.deepEqual((await sql.query(writeMuch)).rows, [['300000']], 'the guest went on');
      const told = await pair.until('told that the replica is full', timeoutMs, (all) =>
        all.some((one) => one.role === 'primary' && /ENOSPC|full/.test(one.disks?.problem ?? '')),
      );
      assert.equal(told.find((one) => one.role === 'primary')?.protected, false);
      assert.deepEqual((await sql.query('SELECT count(*) FROM large')).rows, [['300000']], 'on one connection');
      // Asked for a checkpoint, it says why there is none, and looks for the secondary at once.
      const waits = await pair.until('waiting for the next try', timeoutMs, (all) =>
        all.some((one) => one.role === 'primary' && (one.nextTryInMs ?? 0) > 3000),
      );
      assert.match(waits.find((one) => one.role === 'primary')?.why ?? '', /^b was lost: .*(ENOSPC|full)/);
      const asked = callNode({ socketPath: pair.a.apiPath, method: 'POST', path: '/checkpoint', timeoutMs: 120_000 });
      await assert.rejects(asked, {
        // It may be trying already.
        message: /not protected \(\w+\)/,
        hint: /^b was lost: .*; a secondary is looked/,
      });
      makeRoom(small);
      await isProtected();
      await pair.a.kill();
      await pair.until('taken over', timeoutMs, (all) => all.some((one) => one.node === 'b' && one.role === 'primary'));
      assert.deepEqual((await sql.query('SELECT count(*) FROM large')).rows, [['300000']], 'on the other node');
    }),
);
