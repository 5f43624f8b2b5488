// Where guest RAM lies in QEMU: two sources must agree, and any doubt is a refusal.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { mappedAt, ramAddress } from './ram-address.ts';

const path = '/dev/shm/vm/ram';
const answer = 'Host virtual address for 0x0 (ram) is 0x7f1577fff000\r\n';
const whole = `7f1577fff000-7f157ffff000 rw-s 00000000 00:19 12 ${path}\n`;

test("QEMU's answer and the kernel's list agree on the address", () => {
  const maps = `55d0-55d1 r--p 00000000 00:00 0\n${whole}7f1580000000-7f1580001000 rw-p 00000000 00:00 0\n`;
  assert.equal(ramAddress(maps, answer, path, 0x8000000), 0x7f1577fff000);
});

test('a mapping that the kernel lists in pieces is one mapping when it has no gap', () => {
  const pieces = `1000-3000 rw-s 00000000 00:19 12 ${path}\n3000-5000 rw-s 00002000 00:19 12 ${path}\n`;
  assert.equal(mappedAt(pieces, path, { offset: 0, bytes: 0x4000 }), 0x1000);
  const gap = pieces.replace('3000-5000', '4000-6000');
  assert.equal(mappedAt(gap, path, { offset: 0, bytes: 0x4000 }), undefined);
  const shifted = pieces.replace('00002000', '00003000');
  assert.equal(mappedAt(shifted, path, { offset: 0, bytes: 0x4000 }), undefined);
});

test('any doubt is a refusal', () => {
  const refused = { code: 'COLO_E_MACHINE' };
  assert.throws(() => ramAddress('', answer, path, 0x8000000), refused);
  assert.throws(() => ramAddress(whole, 'No memory is mapped at address 0x0\r\n', path, 0x8000000), refused);
  assert.throws(() => ramAddress(whole, answer.replace('7fff000', '7ffe000'), path, 0x8000000), refused);
  assert.throws(() => ramAddress(whole, answer, path, 0x10000000), refused);
});
