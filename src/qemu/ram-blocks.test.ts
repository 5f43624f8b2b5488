// A machine with memory that no checkpoint would cover is refused, by QEMU's list of its RAM blocks.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ColoError } from '../base/errors.ts';
import { assertCovered, parseRamBlocks, placeBlocks, placesText } from './ram-blocks.ts';

const ramBytes = 0x8000000;
const heading = '              Block Name    PSize              Offset               Used              Total\r\n';
const line = (name: string, used: string) =>
  `${name.padStart(24)}    4 KiB  0x0000000008080000 ${used} 0x0000000000200000\r\n`;
const ram = line('ram', '0x0000000008000000');

test('a machine whose only other blocks are firmware and its tables is accepted', () => {
  const names = ['/rom@etc/acpi/tables', 'pc.bios', 'pc.rom', '0000:00:02.0/virtio-net-pci.rom', '/rom@etc/acpi/rsdp'];
  const text = heading + ram + names.map((name) => line(name, '0x0000000000040000')).join('');
  const blocks = parseRamBlocks(text);
  assert.equal(blocks.length, 6);
  assertCovered(blocks, ramBytes);
});

test('memory of a display adapter or of flash is refused by name', () => {
  for (const name of ['vga.vram', 'system.flash1', 'nvdimm0', 'mem1']) {
    const blocks = parseRamBlocks(heading + ram + line(name, '0x0000000001000000'));
    assert.throws(
      () => assertCovered(blocks, ramBytes),
      (error) => error instanceof ColoError && error.code === 'COLO_E_MACHINE' && error.message.includes(`"${name}"`),
    );
  }
});

test('RAM that is not the RAM file, or an answer without blocks, is refused', () => {
  for (const text of [heading + line('pc.ram', '0x0000000008000000'), heading + line('ram', '0x4000000'), '']) {
    assert.throws(() => assertCovered(parseRamBlocks(text), ramBytes), { code: 'COLO_E_MACHINE' });
  }
});

test('the columns that QEMU 10 added do not matter', () => {
  const text = `${ram.trimEnd()} 0x00007f1577fff000  rw\n`;
  assert.deepEqual(parseRamBlocks(text), [{ name: 'ram', usedBytes: ramBytes, totalBytes: 2 ** 21 }]);
});

test('further blocks lie behind the RAM, each from the beginning of a page', () => {
  const { placed, fileBytes } = placeBlocks(ramBytes, [
    { name: 'a', bytes: 5000 },
    { name: 'b', bytes: 4096 },
  ]);
  assert.equal(placesText(placed), `${ramBytes}:5000,${ramBytes + 8192}:4096`);
  assert.equal(fileBytes, ramBytes + 3 * 4096);
});

test('a further block that is there, once, and alone of its size, is covered; any doubt is a refusal', () => {
  const wanted = [{ name: 'vga.vram', bytes: 2 ** 21 }];
  const vram = line('0000:00:01.0/vga.vram', '0x0000000000200000');
  const whole = ram.replace('0x0000000000200000\r', '0x0000000008000000\r');
  const covered = (text: string) => assertCovered(parseRamBlocks(heading + whole + text), ramBytes, wanted);
  covered(vram);
  for (const doubt of [
    '',
    vram + vram,
    vram + line('pc.bios', '0x0000000000040000'),
    vram.replace('vga.vram', 'other'),
  ])
    assert.throws(() => covered(doubt), { code: 'COLO_E_MACHINE' });
});
