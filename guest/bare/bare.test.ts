// What the host knows of the bare guest is what its sources say.

import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { buildBareGuest } from './build.ts';
import { controlFields } from './control.ts';
import { bareCommandLine, knownBytes, parseFields, poolPagesFor } from './guest.ts';

test('the control page has the same fields on both sides', () => {
  const header = readFileSync(join(import.meta.dirname, 'control.h'), 'utf8');
  const struct = /struct control \{([^}]*)\}/.exec(header)?.[1] ?? '';
  const declarations = struct.replaceAll(/\/\*[^*]*\*\//g, '').matchAll(/u64 ([^;]+);/g);
  const names = [...declarations].flatMap(([, list = '']) => list.split(',').map((name) => name.trim()));
  assert.deepEqual([...controlFields], names);
});

test('the image is a kernel as the boot protocol has it, and the variables are not in it', async () => {
  const image = readFileSync(await buildBareGuest());
  assert.equal(image.readUInt16LE(0x1fe), 0xaa55);
  assert.equal(image.subarray(0x202, 0x206).toString(), 'HdrS');
  assert.equal(image.readUInt8(0x1f1), 1);
  assert.equal(image.readUInt32LE(0x1f4) * 16, image.length - 1024);
  assert.ok(image.length < 64 * 1024, `${image.length} bytes`);
  assert.ok(existsSync(await buildBareGuest()));
});

test('the known bytes are those that services.c makes', () => {
  assert.equal(knownBytes(16).toString('hex'), 'ac057de1b979379e580bfac272f36e3c');
  assert.equal(knownBytes(3).length, 3);
  assert.notDeepEqual(knownBytes(16).subarray(0, 8), knownBytes(16).subarray(8));
});

test('fields are read from an answer, and options become words', () => {
  assert.deepEqual(
    [...parseFields('ticks=12 pages=3\n')],
    [
      ['ticks', 12n],
      ['pages', 3n],
    ],
  );
  assert.equal(bareCommandLine({ pages: 5, periodMs: 0.2 }), 'pages=5 period=200 beats=0 free=1 pool=16384 vcpus=1');
  assert.equal(poolPagesFor(128 * 2 ** 20), 16_384);
  assert.equal(poolPagesFor(1024 * 2 ** 20), 131_072);
});
