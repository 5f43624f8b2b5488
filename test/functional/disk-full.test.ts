// The primary's own disk is full: the guest waits, as it does without protection, the status says why, and it goes on by
// itself when there is room. Real QEMU and PostgreSQL on a small file system. Needs root.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { buildDiskGuest, copyDisk } from '../../guest/disk/build.ts';
import { systemClock } from '../../src/base/clock.ts';
import { checkSpec } from '../../src/config/spec.ts';
import { consoleSays } from '../../src/demo/console.ts';
import { Postgres } from '../../src/demo/postgres.ts';
import { freePorts } from '../../src/lan/gateway.ts';
import { LocalPair } from '../../src/local/pair.ts';

const skip = process.getuid?.() === 0 ? {} : { skip: 'needs root' };
const timeoutMs = 120_000;

test(
  'a guest whose own disk is full waits, the status says why, and with room it goes on by itself',
  skip,
  async () => {
    const folder = mkdtempSync(join(tmpdir(), 'colo-full-'));
    const small = join(folder, 'small');
    mkdirSync(small);
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1G', 'colo-full', small]);
    let pair: LocalPair | undefined;
    try {
      const guest = await buildDiskGuest();
      const path = join(small, 'disk.raw');
      await copyDisk(guest, path);
      const usedMib = Math.ceil((statSync(path).blocks * 512) / 2 ** 20);
      execFileSync('mount', ['-o', `remount,size=${usedMib + 24}M`, small]);
      const spec = checkSpec(
        {
          ...{ vm: 'disk-full', boot: { guest: 'demo' }, machine: { memory: '320M' } },
          disks: [{ path, format: 'raw' }],
          replicaFolder: join(folder, 'replica'),
        },
        'the test',
      );
      const [port = 0] = await freePorts(1);
      const forwards = [{ protocol: 'tcp' as const, hostPort: port, guestPort: guest.ports.postgres }];
      const boot = { kernel: guest.kernel, initrd: guest.initrd, cmdline: guest.cmdline };
      pair = await LocalPair.start({ spec, boot, forwards, clock: systemClock });
      await consoleSays(pair.a, { text: 'colo-guest ready', path: join(pair.logDir, 'a.serial'), timeoutMs });
      const sql = await Postgres.connect(port);
      // Random, so that nothing of it is a hole.
      const answer = sql.query(`CREATE TABLE large AS SELECT n, md5(n::text) || md5((n + 1)::text) AS text
      FROM generate_series(1, 300000) AS n; CHECKPOINT; SELECT count(*) FROM large`);
      answer.catch(() => undefined);
      const isFull = await pair.until('told that the disk is full', timeoutMs, (all) =>
        all.some((one) => /no room for .*the guest waits/.test(one.disks?.problem ?? '')),
      );
      assert.equal(isFull.length, 1);
      execFileSync('mount', ['-o', 'remount,size=1G', small]);
      await pair.until('over it', timeoutMs, (all) => all.some((one) => one.disks?.problem === ''));
      assert.deepEqual((await answer).rows, [['300000']]);
      sql.close();
    } finally {
      await pair?.stop();
      execFileSync('umount', [small]);
      rmSync(folder, { recursive: true });
    }
  },
);
