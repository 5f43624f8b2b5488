// Where guest RAM lies in QEMU's address space. Two sources must agree: QEMU's own answer for guest-physical address 0,
// and the kernel's list of QEMU's mappings of the RAM file. On q35 and pc, RAM above the PCI hole continues at
// guest-physical 4 GiB, but the file is mapped once and in one piece, which the list proves.
//
//   /proc/PID/maps:  7f1577fff000-7f157ffff000 rw-s 00000000 00:19 12 /dev/shm/vm/ram

import { ColoError, errorCodes } from '../base/errors.ts';

const mapsLine = /^([0-9a-f]+)-([0-9a-f]+) rw-s ([0-9a-f]+) \S+ \d+\s+(.*)$/;

/** Start of the one gapless mapping of the whole file, or undefined. The kernel may have split it into several lines. */
export function mappedAt(maps: string, path: string, bytes: number): number | undefined {
  let first: number | undefined;
  let covered = 0;
  for (const line of maps.split('\n')) {
    const match = mapsLine.exec(line);
    if (match === null || match[4] !== path) continue;
    const start = Number.parseInt(match[1] ?? '', 16);
    first ??= start;
    if (start !== first + covered || Number.parseInt(match[3] ?? '', 16) !== covered) return undefined;
    covered += Number.parseInt(match[2] ?? '', 16) - start;
  }
  return covered === bytes ? first : undefined;
}

/** The address in QEMU's answer to `gpa2hva 0`. */
function parseHostAddress(text: string): number | undefined {
  const match = /is 0x([0-9a-f]+)\s*$/.exec(text);
  return match?.[1] === undefined ? undefined : Number.parseInt(match[1], 16);
}

export function ramAddress(maps: string, answer: string, path: string, bytes: number): number {
  const mapped = mappedAt(maps, path, bytes);
  const answered = parseHostAddress(answer);
  if (mapped !== undefined && mapped === answered) return mapped;
  throw new ColoError(errorCodes.machine, `Guest RAM is not where it should be in QEMU (${answer.trim()}).`, {
    hint: 'Leave memory, NUMA and firmware options out of the extra arguments.',
  });
}
