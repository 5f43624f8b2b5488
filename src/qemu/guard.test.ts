// What QEMU says of a machine's health, read with suspicion.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { blockedReasons, imagesInRam, ringRanges } from './guard.ts';

test('the reasons why a state cannot be saved are read, and odd answers are none', () => {
  assert.deepEqual(blockedReasons({ 'blocked-reasons': ['a', { b: 1 }] }), ['a', '{"b":1}']);
  for (const odd of [{}, null, 'text', { 'blocked-reasons': 5 }, []]) assert.deepEqual(blockedReasons(odd), []);
});

test('only images that a reset writes into RAM count: no firmware, no tables, no option ROM', () => {
  const text = [
    'fw=genroms/kvmvapic.bin size=0x002400 name="kvmvapic.bin"',
    'addr=00000000fffc0000 size=0x040000 mem=rom name="bios-256k.bin"',
    'addr=00000000ffff0000 size=0x010000 mem=ram name="bios-microvm.bin"',
    'addr=0000000000100000 size=0x002000 mem=ram name="kernel.elf ELF program header segment 0"',
    '/rom@etc/acpi/tables size=0x200000 name="etc/acpi/tables"',
    'addr=nonsense',
  ].join('\r\n');
  assert.deepEqual(imagesInRam(text), [{ start: 0x100000, end: 0x102000 }]);
});

test('a queue has three parts where its driver put them, and none before', () => {
  const queue = { 'vring-num': 256, 'vring-desc': 0x1000, 'vring-avail': 0x2000, 'vring-used': 0x3000 };
  assert.deepEqual(ringRanges(queue), [
    { start: 0x1000, end: 0x2000 },
    { start: 0x2000, end: 0x2206 },
    { start: 0x3000, end: 0x3806 },
  ]);
  assert.deepEqual(ringRanges({ ...queue, 'vring-desc': 0, 'vring-avail': 'x', 'vring-used': -1 }), []);
  assert.deepEqual(ringRanges(null), []);
});
