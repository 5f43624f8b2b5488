// Which memory a machine has, from the monitor's `info ramblock`, and whether a checkpoint covers all of it.
//
// Checkpoints carry the RAM file and the device state, and device state leaves RAM blocks out. A block that the guest
// can write and that is not in the RAM file would silently stay behind on the secondary: such a machine is refused.
// QEMU 7.2 does not print whether a block is read-only, so blocks are known by name; an unknown one is refused.
//
//                 Block Name    PSize              Offset               Used              Total   (10.0: HVA  RO)
//                        ram    4 KiB  0x0000000000000000 0x0000000008000000 0x0000000008000000
//
// Further blocks (a VGA card's memory, flash with variables) lie in the RAM file behind the guest's RAM, where the
// preload library moves them as QEMU makes them (native/preload.c):
//
//    RAM file:  | ram ........................ | vga.vram | system.flash1 |
//
// So they are pages like all others: tracked, captured, sent as differences, rolled back, verified, and free of cost
// while nobody writes them. The library knows blocks by their size alone, so no two blocks of a machine may have the
// same one.

import { ColoError, errorCodes } from '../base/errors.ts';
import { pageSize } from '../base/page-runs.ts';

/** The id of the memory backend, and with it the name of the one RAM block that checkpoints cover. */
export const ramBlockName = 'ram';

export interface RamBlock {
  name: string;
  usedBytes: number;
  /** As QEMU maps it; `usedBytes` may grow up to it. */
  totalBytes: number;
}

/** Memory of a device. `name`: QEMU's, without the device that it may stand behind ("0000:00:01.0/vga.vram"). */
export interface FurtherBlock {
  name: string;
  bytes: number;
}

/** Where it lies in the RAM file. */
export interface PlacedBlock extends FurtherBlock {
  offset: number;
}

/** The RAM file: the guest's RAM, and behind it each further block from a page's beginning. */
export function placeBlocks(
  ramBytes: number,
  blocks: readonly FurtherBlock[],
): { placed: PlacedBlock[]; fileBytes: number } {
  let fileBytes = ramBytes;
  const placed = blocks.map((block) => {
    const offset = fileBytes;
    fileBytes += Math.ceil(block.bytes / pageSize) * pageSize;
    return { ...block, offset };
  });
  return { placed, fileBytes };
}

/** What the preload library is told. */
export function placesText(placed: readonly PlacedBlock[]): string {
  return placed.map(({ offset, bytes }) => `${offset}:${bytes}`).join(',');
}

const blockLine = /^\s*(\S+)\s+\d+\s+[KMG]iB\s+0x[0-9a-f]+\s+(0x[0-9a-f]+)\s+(0x[0-9a-f]+)/;

/** Unknown lines are skipped: the heading, and whatever a later version adds. */
export function parseRamBlocks(text: string): RamBlock[] {
  const blocks: RamBlock[] = [];
  for (const line of text.split('\n')) {
    const match = blockLine.exec(line);
    if (match?.[1] !== undefined)
      blocks.push({ name: match[1], usedBytes: Number(match[2]), totalBytes: Number(match[3]) });
  }
  return blocks;
}

// Blocks that hold the same bytes on both nodes for as long as the machine runs:
//  - pc.bios and pc.rom are the firmware, isa-bios the upper end of it once more. The firmware's shadow, which the
//    guest can write, lies in the RAM file.
//  - system.flash0 is the firmware's code in flash, which machine.ts makes read-only and never otherwise.
//  - *.rom are boot ROMs of PCI cards, read-only for the guest.
//  - /rom@etc/... are tables that QEMU's fw_cfg hands to the firmware. The guest cannot write them; QEMU itself
//    completes them when the firmware first reads them. On the secondary the guest never booted, so its copy is the
//    uncompleted one, and nobody reads it: the guest has its tables in its own RAM. A reboot makes QEMU build them
//    anew. They are not in the device state, and loading does not ask for them (test/functional/qemu.test.ts).
function constant(name: string): boolean {
  return constantNames.has(name) || name.endsWith('.rom') || name.startsWith('/rom@etc/');
}

const constantNames = new Set(['pc.bios', 'pc.rom', 'isa-bios', 'system.flash0']);

function isOf(block: RamBlock, further: FurtherBlock): boolean {
  return block.name === further.name || block.name.endsWith(`/${further.name}`);
}

/** Throws COLO_E_MACHINE unless the RAM file holds all the memory that the guest can write. */
export function assertCovered(
  blocks: readonly RamBlock[],
  ramBytes: number,
  further: readonly FurtherBlock[] = [],
): void {
  const ram = blocks.find(({ name }) => name === ramBlockName);
  if (ram?.usedBytes !== ramBytes) {
    throw new ColoError(errorCodes.machine, `The machine's RAM is not the RAM file of ${ramBytes} bytes.`, {
      hint: 'Leave -m, -machine memory-backend= and -object memory-backend-* out of the extra arguments.',
    });
  }
  for (const one of further) assertUnmistakable(blocks, one);
  const isKnown = (block: RamBlock) => constant(block.name) || further.some((one) => isOf(block, one));
  const uncovered = blocks.find((block) => block.name !== ramBlockName && !isKnown(block));
  if (uncovered === undefined) return;
  throw new ColoError(
    errorCodes.machine,
    `The machine has memory that no checkpoint would cover: block "${uncovered.name}", ${uncovered.usedBytes} bytes.`,
    { hint: 'Remove the device that owns it (a display adapter, flash memory, an NVDIMM) from the extra arguments.' },
  );
}

/** There is one such block, and no other of its size that the preload library could have taken for it. */
function assertUnmistakable(blocks: readonly RamBlock[], wanted: FurtherBlock): void {
  const ofName = blocks.filter((block) => isOf(block, wanted));
  const ofSize = blocks.filter(({ totalBytes }) => totalBytes === wanted.bytes);
  const [block] = ofName;
  if (ofName.length === 1 && ofSize.length === 1 && ofSize[0] === block && block?.usedBytes === wanted.bytes) return;
  const found = [...new Set([...ofName, ...ofSize])].map(({ name, totalBytes }) => `"${name}", ${totalBytes} bytes`);
  throw new ColoError(
    errorCodes.machine,
    `The machine's block "${wanted.name}" of ${wanted.bytes} bytes cannot be told from others: ` +
      `${found.join('; ') || 'there is none'}.`,
    { hint: 'Leave devices with memory of that size out of the extra arguments.' },
  );
}
