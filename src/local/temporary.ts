// A folder for one run among the system's temporary ones, for what is too large for a tmpfs: disk images. What a run
// that was killed has left in its own is removed by the next run that takes one.
//
// A folder is held by flock(2) on it, which the kernel drops when the process dies: so it does not matter whose process
// ids those are, which of several containers with one /tmp could not know.

import { closeSync, constants, mkdtempSync, openSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { tryLock } from '../base/descriptors.ts';
import { isAt } from '../base/owner-file.ts';
import { removalTriesMax } from './limits.ts';

export interface TemporaryFolder {
  folder: string;
  /** Removes it with all that is in it. */
  release: () => void;
}

/** Makes a folder whose name begins with `prefix`, and removes those of dead runs. */
export function takeTemporaryFolder(prefix: string): TemporaryFolder {
  for (const name of readdirSync(tmpdir())) if (name.startsWith(prefix)) removeUnlessHeld(join(tmpdir(), name));
  for (;;) {
    const folder = mkdtempSync(join(tmpdir(), prefix));
    const fd = lock(folder);
    // Another run may have taken it for one of a dead run, before it was held.
    if (fd !== undefined)
      return {
        folder,
        release: () => {
          remove(folder);
          closeSync(fd);
        },
      };
  }
}

function removeUnlessHeld(folder: string): void {
  try {
    const fd = lock(folder);
    if (fd === undefined) return;
    remove(folder);
    closeSync(fd);
  } catch {
    // Another user's, or it has just been removed.
  }
}

/** Undefined when another process holds it, or it is no more. */
function lock(folder: string): number | undefined {
  const fd = openSync(folder, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);
  if (tryLock(fd) && isAt(folder, fd)) return fd;
  closeSync(fd);
  return undefined;
}

function remove(folder: string): void {
  rmSync(folder, { recursive: true, force: true, maxRetries: removalTriesMax });
}
