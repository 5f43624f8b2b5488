// The doctor says what to do where something falls short, and only there.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseTotals } from './dev/test.ts';
import { formatDoctor, qemuLine, roomLine } from './doctor.ts';

test('a QEMU older than 7.2 counts as missing, newer ones are ok', () => {
  const said = (version: string): string => `QEMU emulator version ${version} (Debian)\n`;
  assert.equal(qemuLine(said('7.2.22')).state, 'ok');
  assert.equal(qemuLine(said('10.0.2')).state, 'ok');
  assert.equal(qemuLine(said('7.1.0')).state, 'missing');
  assert.equal(qemuLine(undefined).state, 'missing');
});

test('too little memory is limited, far too little is missing', () => {
  const states = [4096, 1024, 256].map((mebibytes) => roomLine('memory', mebibytes * 1024 * 1024, 'x').state);
  assert.deepEqual(states, ['ok', 'limited', 'missing']);
});

test('what to do stands below the line that needs it', () => {
  const text = formatDoctor([roomLine('memory', 0, 'Free some.'), roomLine('disk', 2 ** 40, 'Never shown.')]);
  assert.equal(text, 'missing memory  0 MiB free\n                -> Free some.\nok      disk    1048576 MiB free\n');
});

test("totals are read from the spec reporter's closing lines, also when failures follow", () => {
  const text = '✔ a test\nℹ tests 3\nℹ suites 0\nℹ pass 2\nℹ fail 1\nℹ cancelled 0\nℹ skipped 0\n✖ failing tests:\n';
  assert.deepEqual(parseTotals(text), { tests: 3, pass: 2, fail: 1, cancelled: 0, skipped: 0 });
});
