// Memory for a pair on this one machine, asked for before anything starts: short of it the kernel would kill one of the
// processes, at some later time.
//
//   none    the guest's RAM
//   remus   the primary's and the secondary's
//   colo    the primary's, the secondary's, and the secondary's shadow (docs/ARCHITECTURE.md, "Memory")
//
// RAM lies in files on /dev/shm, which is limited by itself; the shadow does not.

import { statfsSync } from 'node:fs';
import { ColoError, errorCodes } from '../base/errors.ts';
import { formatSize } from '../config/size.ts';
import type { Spec } from '../config/spec.ts';
import { memoryAvailableBytes } from '../host/kernel-features.ts';
import { runRoot } from './directories.ts';

export interface Room {
  memoryBytes: number;
  /** Infinity for a tmpfs without a limit. */
  tmpfsBytes: number;
}

const nodesOf = { none: 1, remus: 2, colo: 2 } as const;
const copiesOf = { none: 1, remus: 2, colo: 3 } as const;

export function roomHere(): Room {
  const { blocks, bavail, bsize } = statfsSync('/dev/shm');
  return { memoryBytes: memoryAvailableBytes(), tmpfsBytes: blocks === 0 ? Number.POSITIVE_INFINITY : bavail * bsize };
}

/** Refuses a guest whose copies do not fit. */
export function refuseWithoutRoom(spec: Pick<Spec, 'machine' | 'protect'>, room: Room): void {
  const { memory } = spec.machine;
  const { mode } = spec.protect;
  const refuse = (what: string, free: number, copies: number, hint: string) => {
    if (free >= memory * copies) return;
    const text =
      `${what} has ${formatSize(free)} free, and a guest with ${formatSize(memory)} needs ` +
      `${formatSize(memory * copies)} in mode ${mode}`;
    throw new ColoError(errorCodes.host, text, { hint });
  };
  refuse('this machine', room.memoryBytes, copiesOf[mode], 'give the guest less memory (machine.memory), or free some');
  const larger = 'give the guest less memory (machine.memory), or do: mount -o remount,size=SIZE /dev/shm';
  refuse(runRoot(), room.tmpfsBytes, nodesOf[mode], larger);
}
