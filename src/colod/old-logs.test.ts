// Logs of VMs that have left a node do not fill its disk, whatever number of VMs come and go.

import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { removeOldLogs } from './old-logs.ts';

test('the newest logs of VMs that have left are kept, up to the bound, and those of VMs that are here always', async () => {
  const root = mkdtempSync(join(tmpdir(), 'colo-logs-'));
  try {
    for (let vm = 0; vm < 10; vm += 1) {
      mkdirSync(join(root, `vm${vm}`));
      writeFileSync(join(root, `vm${vm}`, 'node.log'), 'line\n');
      utimesSync(join(root, `vm${vm}`, 'node.log'), 1000 + vm, 1000 + vm);
    }
    assert.deepEqual(await removeOldLogs(root, new Set(['vm0']), 3), ['vm6', 'vm5', 'vm4', 'vm3', 'vm2', 'vm1']);
    assert.deepEqual(readdirSync(root).sort(), ['vm0', 'vm7', 'vm8', 'vm9']);
    assert.deepEqual(await removeOldLogs(root, new Set(['vm0']), 3), []);
  } finally {
    rmSync(root, { recursive: true });
  }
  assert.deepEqual(await removeOldLogs('/nowhere', new Set(), 3), []);
});
