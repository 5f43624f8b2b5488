// A guest whose copies do not fit into this machine is refused before it starts.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { errorCodes } from '../base/errors.ts';
import { checkSpec } from '../config/spec.ts';
import { refuseWithoutRoom } from './room.ts';

const MiB = 2 ** 20;
const spec = (mode: string) => checkSpec({ vm: 'a', boot: { guest: 'demo' }, protect: { mode } }, 'spec');

test('every copy of the RAM needs memory, and every node a file on the tmpfs', () => {
  for (const [mode, copies, files] of [
    ['none', 1, 1],
    ['remus', 2, 2],
    ['colo', 3, 2],
  ] as const) {
    const enough = { memoryBytes: copies * 256 * MiB, tmpfsBytes: files * 256 * MiB };
    refuseWithoutRoom(spec(mode), enough);
    refuseWithoutRoom(spec(mode), { ...enough, tmpfsBytes: Number.POSITIVE_INFINITY });
    const code = errorCodes.host;
    const little = { ...enough, memoryBytes: enough.memoryBytes - 1 };
    assert.throws(() => refuseWithoutRoom(spec(mode), little), { code, message: /this machine has .* free/ });
    const narrow = { ...enough, tmpfsBytes: enough.tmpfsBytes - 1 };
    assert.throws(() => refuseWithoutRoom(spec(mode), narrow), { code, message: /\/dev\/shm\/.* free/ });
  }
});
