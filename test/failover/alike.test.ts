// Two hosts whose QEMUs make two machines of one spec are no pair: the VM is never called protected, and both say why.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { buildGuest } from '../../guest/build.ts';
import { nodeStatus } from '../../src/api/node-client.ts';
import { delay, systemClock } from '../../src/base/clock.ts';
import { checkSpec } from '../../src/config/spec.ts';
import { LocalPair } from '../../src/local/pair.ts';

const timeoutMs = 240_000;

test('a host whose QEMU makes another machine of the spec protects nothing, and the primary says what differs', async () => {
  const folder = mkdtempSync('/dev/shm/colo-alike-');
  // q35 is an alias, and another release of QEMU takes it for another machine.
  const older = join(folder, 'qemu');
  writeFileSync(
    older,
    `#!/bin/bash\nargs=()\nfor one in "$@"; do args+=("\${one/#q35,/pc-q35-7.1,}"); done\nexec ` +
      `qemu-system-x86_64 "\${args[@]}"\n`,
    { mode: 0o755 },
  );
  const guest = await buildGuest();
  const pair = await LocalPair.start({
    spec: checkSpec({ vm: 'alike', boot: { guest: 'demo' }, machine: { memory: '128M' } }, 'the test'),
    boot: { kernel: guest.kernel, initrd: guest.initrd, cmdline: guest.cmdline },
    clock: systemClock,
    forwards: [],
    gateway: false,
    qemuAt: (node) => (node === 'b' ? older : undefined),
  });
  try {
    await pair.startSecondary();
    const deadline = systemClock.now() + timeoutMs;
    let why = '';
    // Twice: it is found out by a start, and then known without one.
    for (let times = 0; times < 2; why = '') {
      const status = await nodeStatus(pair.a.apiPath);
      assert.equal(status.protected, false);
      why = status.why;
      if (/the machine type is pc-q35-\S+ on a and pc-q35-7.1 on b/.test(why)) times += 1;
      assert.ok(systemClock.now() < deadline, why);
      await delay(100);
    }
  } finally {
    await pair.stop();
    rmSync(folder, { recursive: true, force: true });
  }
});
