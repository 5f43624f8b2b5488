// Where guest RAM lies in QEMU's address space. Two sources must agree: QEMU's own answer for guest-physical address 0,
// and the kernel's list of QEMU's mappings of the RAM file. On q35 and pc, RAM above the PCI hole continues at
// guest-physical 4 GiB, but the file is mapped once and in one piece, which the list proves.
//
// Further blocks (ram-blocks.ts) are where the list says; that they are the right ones is known by their size.
//
//   /proc/PID/maps:  7f1577fff000-7f157ffff000 rw-s 00000000 00:19 12 /dev/shm/vm/ram

import { ColoError, errorCodes } from '../base/errors.ts';
import { pageSize } from '../base/page-runs.ts';
import type { PlacedBlock } from './ram-blocks.ts';

const mapsLine = /^([0-9a-f]+)-([0-9a-f]+) rw-s ([0-9a-f]+) \S+ \d+\s+(.*)$/;

/** A part of the RAM file. */
export interface FilePart {
  offset: number;
  bytes: number;
}

/**
 * Start of the one gapless mapping of that part of the file, or undefined. The kernel may have split it into several
 * lines, or list it together with what lies beside it in both.
 */
export function mappedAt(maps: string, path: string, { offset, bytes }: FilePart): number | undefined {
  let first: number | undefined;
  let covered = 0;
  for (const line of maps.split('\n')) {
    const match = mapsLine.exec(line);
    if (match === null || match[4] !== path) continue;
    const [lineStart = 0, lineEnd = 0, fileStart = 0] = match.slice(1, 4).map((text) => Number.parseInt(text, 16));
    const from = Math.max(fileStart, offset);
    const to = Math.min(fileStart + lineEnd - lineStart, offset + bytes);
    if (from >= to) continue;
    const start = lineStart + from - fileStart;
    first ??= start;
    if (start !== first + covered || from !== offset + covered) return undefined;
    covered += to - from;
  }
  return covered === bytes ? first : undefined;
}

/** The address in QEMU's answer to `gpa2hva 0`. */
function parseHostAddress(text: string): number | undefined {
  const match = /is 0x([0-9a-f]+)\s*$/.exec(text);
  return match?.[1] === undefined ? undefined : Number.parseInt(match[1], 16);
}

export function ramAddress(maps: string, answer: string, path: string, bytes: number): number {
  const mapped = mappedAt(maps, path, { offset: 0, bytes });
  const answered = parseHostAddress(answer);
  if (mapped !== undefined && mapped === answered) return mapped;
  throw new ColoError(errorCodes.machine, `Guest RAM is not where it should be in QEMU (${answer.trim()}).`, {
    hint: 'Leave memory, NUMA and firmware options out of the extra arguments.',
  });
}

/** Where a further block lies; the preload library has moved it into the file. */
export function blockAddress(maps: string, path: string, block: PlacedBlock): number {
  const bytes = Math.ceil(block.bytes / pageSize) * pageSize;
  const address = mappedAt(maps, path, { offset: block.offset, bytes });
  if (address !== undefined) return address;
  throw new ColoError(errorCodes.machine, `The memory "${block.name}" of QEMU could not be moved into the RAM file.`, {
    hint: 'A display of kind "vga" and UEFI need the preload library: install gcc and libc6-dev, and see the log.',
  });
}
