// One colo process at a time prepares a thing (a guest image, packages). The lock is flock(2), held by a child: the
// kernel drops it when the child ends, and the child ends when our end of its standard input closes, which also
// happens when this process is killed. So there are no stale locks and nothing to clean up.

import { spawn } from 'node:child_process';
import { dirname } from 'node:path';
import { ColoError, errorCodes } from '../base/errors.ts';
import { makeFolder } from '../base/make-folder.ts';
import { lockTimeoutMs } from './limits.ts';

interface HeldLock {
  release(): Promise<void>;
}

function acquire(path: string): Promise<HeldLock> {
  const timeoutSeconds = String(lockTimeoutMs / 1000);
  const holder = spawn('flock', ['--timeout', timeoutSeconds, path, 'sh', '-c', 'echo held; exec cat >/dev/null'], {
    stdio: ['pipe', 'pipe', 'ignore'],
    // A Ctrl-C in the terminal is ours to handle: the lock must outlast our own cleaning up.
    detached: true,
  });
  return new Promise((resolve, reject) => {
    const ended = new Promise<void>((done) => void holder.once('close', () => done()));
    holder.once('error', (cause) => reject(new ColoError(errorCodes.host, 'flock could not be run', { cause })));
    holder.once('close', () => {
      reject(new ColoError(errorCodes.host, `${path} stayed locked by another colo for ${timeoutSeconds} s`));
    });
    holder.stdout.once('data', () => {
      resolve({
        release() {
          holder.stdin.end();
          return ended;
        },
      });
    });
  });
}

/** Runs `action` while this process alone holds the lock file `path`; waits for whoever holds it now. */
export async function withFileLock<T>(path: string, action: () => Promise<T>): Promise<T> {
  makeFolder(dirname(path));
  const lock = await acquire(path);
  try {
    return await action();
  } finally {
    await lock.release();
  }
}
