// Where a pair on this machine keeps its files. Guest RAM, sockets and device state lie on tmpfs below /dev/shm;
// nothing of it is worth keeping, and a run that was killed leaves it behind, so the next run of any VM sweeps it away.
//
//   /dev/shm/colo-UID/VM/owner        process that runs the pair, with its start time
//                        lan.sock     the switch
//                        a/ b/        one per node: VM files, api.sock, link.sock
//                        arbiter/     terms
//   STATE/VM/a.log b.log a.serial ... logs, kept until the next run of that VM

import {
  closeSync,
  constants,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { homedir, userInfo } from 'node:os';
import { join } from 'node:path';
import { tryLock } from '../base/descriptors.ts';
import { ColoError, errorCodes } from '../base/errors.ts';
import { makeFolder } from '../base/make-folder.ts';
import { isAt } from '../base/owner-file.ts';
import { processIdentity } from '../base/processes.ts';
import { removalTriesMax, runRootLockMsMax, runRootPollMs } from './limits.ts';

/** The folder of all running pairs of this user. */
export function runRoot(): string {
  return `/dev/shm/colo-${userInfo().uid}`;
}

export function runDirectory(vm: string): string {
  return join(runRoot(), vm);
}

export function logDirectory(vm: string): string {
  const base = process.env['XDG_STATE_HOME'] ?? join(homedir(), '.local', 'state');
  return join(base, 'colo', vm);
}

/** Removes what an earlier run has left of one node's log and console. */
export function removeLogs(directory: string, node: string): void {
  for (const kind of ['log', 'serial'])
    for (const age of ['', '.old']) rmSync(join(directory, `${node}.${kind}${age}`), { force: true });
}

/** Takes the VM's run directory for this process; removes what dead runs left. */
export function takeRunDirectory(vm: string): string {
  const unlock = lockRunRoot();
  if (unlock === undefined)
    throw new ColoError(errorCodes.host, `${runRoot()} is locked by another colo`, {
      hint: 'one that starts or ends a VM stands still: end it, or let it go on',
    });
  try {
    sweep();
    return makeRunDirectory(vm);
  } finally {
    unlock();
  }
}

function makeRunDirectory(vm: string): string {
  const directory = runDirectory(vm);
  try {
    mkdirSync(directory, { mode: 0o700 });
  } catch (cause) {
    const owner = ownerOf(directory);
    if (owner === '')
      throw new ColoError(errorCodes.host, `cannot make ${directory}`, {
        cause,
        hint: 'remove it, or what is in its way',
      });
    throw new ColoError(errorCodes.input, `a VM named ${vm} runs already (process ${owner})`, {
      hint: 'end that run (Ctrl-C where it was started), or give this one another name',
    });
  }
  writeFileSync(join(directory, 'owner'), processIdentity(process.pid) ?? '');
  return directory;
}

/** Removes the VM's directory, and the folder of all of them when it was the last. */
export function releaseRunDirectory(directory: string): void {
  const unlock = lockRunRoot();
  try {
    // A child of a node that was killed may just be making a file in it (qemu-img).
    rmSync(directory, { recursive: true, force: true, maxRetries: removalTriesMax });
    rmdirSync(runRoot());
  } catch (error) {
    // Another VM runs, or somebody else has removed it.
    if (existsSync(directory)) throw error;
  } finally {
    unlock?.();
  }
}

/**
 * One process at a time begins, ends or sweeps: a directory that has no owner yet would be swept, one that is about to
 * be swept taken, and the folder of all removed under who is about to make one in it. The lock is flock(2) on that
 * folder itself, which the kernel drops when its holder dies. Undefined when it cannot be had.
 */
function lockRunRoot(): (() => void) | undefined {
  const root = runRoot();
  for (let waitedMs = 0; waitedMs < runRootLockMsMax; waitedMs += runRootPollMs) {
    const fd = openRunRoot(root);
    if (fd !== undefined) {
      // Whoever had it may have removed it, and another one made it anew.
      if (tryLock(fd) && isAt(root, fd)) return () => closeSync(fd);
      closeSync(fd);
    }
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, runRootPollMs);
  }
  return undefined;
}

/** Undefined when whoever ended the last run removed it since it was there: asked again. */
function openRunRoot(root: string): number | undefined {
  makeFolder(root, 0o700);
  try {
    return openSync(root, constants.O_RDONLY | constants.O_DIRECTORY);
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw error;
  }
}

/** The VMs that run on this machine. */
export function runningVms(): string[] {
  if (!existsSync(runRoot())) return [];
  return readdirSync(runRoot()).filter((vm) => ownerOf(runDirectory(vm)) !== '');
}

/** Removes the directories whose owner is dead: its nodes ended with it, and QEMU with them. */
function sweep(): void {
  for (const vm of readdirSync(runRoot())) {
    const directory = runDirectory(vm);
    if (ownerOf(directory) !== '') continue;
    try {
      rmSync(directory, { recursive: true, force: true });
    } catch {
      // Something is mounted in it: in the way of a VM of this name only, whose run says so.
    }
  }
}

/** Process id of the living owner, or ''. */
function ownerOf(directory: string): string {
  try {
    const owner = readFileSync(join(directory, 'owner'), 'utf8');
    const pid = Number.parseInt(owner, 10);
    return pid > 0 && processIdentity(pid) === owner ? String(pid) : '';
  } catch {
    return '';
  }
}
