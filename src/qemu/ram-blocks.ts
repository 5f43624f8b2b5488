// Which memory a machine has, from the monitor's `info ramblock`, and whether a checkpoint covers all of it.
//
// Checkpoints carry the RAM file and the device state, and device state leaves RAM blocks out. A block that the guest
// can write and that is not the RAM file would silently stay behind on the secondary: such a machine is refused.
// QEMU 7.2 does not print whether a block is read-only, so blocks are known by name; an unknown one is refused.
//
//                 Block Name    PSize              Offset               Used              Total   (10.0: HVA  RO)
//                        ram    4 KiB  0x0000000000000000 0x0000000008000000 0x0000000008000000

import { ColoError, errorCodes } from '../base/errors.ts';
import { ramBlockName } from './machine.ts';

export interface RamBlock {
  name: string;
  usedBytes: number;
}

const blockLine = /^\s*(\S+)\s+\d+\s+[KMG]iB\s+0x[0-9a-f]+\s+(0x[0-9a-f]+)\s+0x[0-9a-f]+/;

/** Unknown lines are skipped: the heading, and whatever a later version adds. */
export function parseRamBlocks(text: string): RamBlock[] {
  const blocks: RamBlock[] = [];
  for (const line of text.split('\n')) {
    const match = blockLine.exec(line);
    if (match?.[1] !== undefined) blocks.push({ name: match[1], usedBytes: Number(match[2]) });
  }
  return blocks;
}

// Blocks that hold the same bytes on both nodes for as long as the machine runs:
//  - pc.bios and pc.rom are the firmware. The firmware's shadow, which the guest can write, lies in the RAM file.
//  - *.rom are boot ROMs of PCI cards, read-only for the guest.
//  - /rom@etc/... are tables that QEMU's fw_cfg hands to the firmware. The guest cannot write them; QEMU itself
//    completes them when the firmware first reads them. On the secondary the guest never booted, so its copy is the
//    uncompleted one, and nobody reads it: the guest has its tables in its own RAM. A reboot makes QEMU build them anew.
//    They are not in the device state, and loading does not ask for them (test/functional/qemu.test.ts).
function constant(name: string): boolean {
  return name === 'pc.bios' || name === 'pc.rom' || name.endsWith('.rom') || name.startsWith('/rom@etc/');
}

/** Throws COLO_E_MACHINE unless the RAM file is all the memory the guest can write. */
export function assertCovered(blocks: readonly RamBlock[], ramBytes: number): void {
  const ram = blocks.find(({ name }) => name === ramBlockName);
  if (ram?.usedBytes !== ramBytes) {
    throw new ColoError(errorCodes.machine, `The machine's RAM is not the RAM file of ${ramBytes} bytes.`, {
      hint: 'Leave -m, -machine memory-backend= and -object memory-backend-* out of the extra arguments.',
    });
  }
  const uncovered = blocks.find(({ name }) => name !== ramBlockName && !constant(name));
  if (uncovered === undefined) return;
  throw new ColoError(
    errorCodes.machine,
    `The machine has memory that no checkpoint would cover: block "${uncovered.name}", ${uncovered.usedBytes} bytes.`,
    { hint: 'Remove the device that owns it (a display adapter, flash memory, an NVDIMM) from the extra arguments.' },
  );
}
