// The NBD server with QEMU's own client: qemu-io writes, trims and reads through it, qemu-img compares the result.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { tryCommand } from '../../src/host/command.ts';
import { nbdErrors } from '../../src/nbd/protocol.ts';
import { NbdServer } from '../../src/nbd/server.ts';

const sizeBytes = 8 * 1024 * 1024;
const memory = Buffer.alloc(sizeBytes);
let folder = '';
let server: NbdServer;
const seen = new Set<string>();

before(async () => {
  folder = mkdtempSync(join(tmpdir(), 'colo-nbd-'));
  server = await NbdServer.listen({
    path: join(folder, 'nbd.sock'),
    exports: [
      { name: 'disk0', sizeBytes, readOnly: false, flush: true },
      { name: 'locked', sizeBytes, readOnly: true, flush: false },
    ],
    handle(request, answer) {
      seen.add(request.kind);
      if (request.kind === 'read') {
        // Answers out of order: a later request may overtake this one.
        setImmediate(() => answer(0, memory.subarray(request.offset, request.offset + request.length)));
        return;
      }
      if (request.kind === 'write') request.data.copy(memory, request.offset);
      if (request.kind === 'writeZeroes') memory.fill(0, request.offset, request.offset + request.length);
      answer(nbdErrors.none);
    },
  });
});

after(async () => {
  await server.close();
  rmSync(folder, { recursive: true });
});

const uri = (name: string) => `nbd+unix:///${name}?socket=${join(folder, 'nbd.sock')}`;

test('qemu-io writes, zeroes, discards, flushes and reads, many requests at once', async () => {
  const commands = [
    'write -P 0x11 0 64k',
    'aio_write -P 0x22 64k 1M',
    'aio_write -P 0x33 2M 3M',
    'aio_read -P 0x11 0 64k',
    'aio_flush',
    'write -z -u 128k 64k',
    'discard 1M 4k',
    'write -f -P 0x44 7M 1M',
    'flush',
    'read -P 0x22 64k 64k',
    'read -P 0 128k 64k',
    'read -P 0x33 2M 3M',
    'read -P 0x44 7M 1M',
  ];
  const args = commands.flatMap((each) => ['-c', each]);
  const result = await tryCommand('qemu-io', ['-f', 'raw', ...args, uri('disk0')]);
  assert.equal(result.code, 0, result.stderr + result.stdout);
  assert.doesNotMatch(result.stdout, /failed/i);
  assert.deepEqual([...seen].sort(), ['flush', 'read', 'trim', 'write', 'writeZeroes']);
  assert.ok(memory.subarray(2 * 1024 * 1024, 5 * 1024 * 1024).every((each) => each === 0x33));
});

test('qemu-img compares the export with a file of the same bytes, and lists what there is', async () => {
  const path = join(folder, 'same.raw');
  writeFileSync(path, memory);
  const compared = await tryCommand('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', path, uri('disk0')]);
  assert.match(compared.stdout, /identical/, compared.stderr);
  memory[4096] = (memory[4096] ?? 0) ^ 1;
  const differs = await tryCommand('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', path, uri('disk0')]);
  assert.equal(differs.code, 1, differs.stdout);
});

test('a read-only export cannot be opened for writing, an unknown one not at all', async () => {
  const locked = await tryCommand('qemu-io', ['-f', 'raw', '-c', 'write 0 4k', uri('locked')]);
  assert.notEqual(locked.code, 0);
  const unknown = await tryCommand('qemu-io', ['-f', 'raw', '-c', 'read 0 4k', uri('nobody')]);
  assert.match(unknown.stderr, /nobody/);
});
