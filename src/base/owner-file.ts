// A file that says which process holds something: its id and, because ids are used again, its start time. It is held by
// flock(2) on it, which the kernel drops when the process ends, however it ends. So there is no moment between finding
// a file stale and taking it in which two could take it, and a file that is still empty is held as well.
//
//   open ─► flock ─► is the path still this file? ─► whose name is in it? ─► own name into it
//             │               │ no: again                   │ a living one (of a version that did not lock)
//             └───────────────┴────────── refused ──────────┘
//
// A process that was killed keeps its lock until its last thread has ended, a moment after its children have got their
// signal. So a lock without a living owner is waited for, ownerDyingMsMax at most.

import {
  closeSync,
  constants,
  fstatSync,
  ftruncateSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs';
import { tryLock } from './descriptors.ts';
import { ownerDyingMsMax, ownerPollMs, ownerTriesMax } from './limits.ts';
import { processIdentity } from './processes.ts';

export interface HeldFile {
  /** Removes the file: it is free. */
  release(): void;
}

/**
 * Takes the file for this process until `release` or its end. The id of the process that has it otherwise; 0: not
 * known.
 */
export function takeFile(path: string): HeldFile | { pid: number } {
  for (let tries = 0, waitedMs = 0; tries < ownerTriesMax; tries += 1) {
    const fd = openSync(path, constants.O_RDWR | constants.O_CREAT, 0o600);
    const isLocked = tryLock(fd);
    // Who had it has removed it meanwhile, and may keep its lock until it has ended.
    if (!isAt(path, fd)) {
      closeSync(fd);
      continue;
    }
    const pid = livingOwner(path);
    if (!isLocked && pid === undefined && waitedMs < ownerDyingMsMax) {
      closeSync(fd);
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ownerPollMs);
      waitedMs += ownerPollMs;
      tries -= 1;
      continue;
    }
    if (!isLocked || pid !== undefined) {
      closeSync(fd);
      return { pid: pid ?? 0 };
    }
    ftruncateSync(fd);
    writeSync(fd, processIdentity(process.pid) ?? String(process.pid), 0);
    return { release: () => release(path, fd) };
  }
  return { pid: 0 };
}

/** The process that holds the file; undefined when there is none, or it is dead, or has not said yet who it is. */
export function livingOwner(path: string): number | undefined {
  try {
    const owner = readFileSync(path, 'utf8');
    const pid = Number.parseInt(owner, 10);
    return pid > 0 && processIdentity(pid) === owner ? pid : undefined;
  } catch {
    return undefined;
  }
}

function release(path: string, fd: number): void {
  rmSync(path, { force: true });
  closeSync(fd);
}

/** Whether the open file is the one at this path. */
export function isAt(path: string, fd: number): boolean {
  const own = fstatSync(fd);
  const there = statSync(path, { throwIfNoEntry: false });
  return there !== undefined && there.ino === own.ino && there.dev === own.dev;
}
