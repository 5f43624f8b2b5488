// The run directory of one VM on one node: private, on a tmpfs, owned by one living process at a time.
//
// The file `owner` names the process that took the directory (base/owner-file.ts).
// A directory whose owner is dead is taken over and its leftovers are removed: QEMU died with its node (preload.c), so
// nobody uses them. Only files of ours are ever removed, by name.

import { chmodSync, rmdirSync, rmSync, statfsSync } from 'node:fs';
import { join } from 'node:path';
import { ColoError, errorCodes } from '../base/errors.ts';
import { makeFolder } from '../base/make-folder.ts';
import { type HeldFile, takeFile } from '../base/owner-file.ts';
import { consolePipes } from './console.ts';
import type { VmFiles } from './machine.ts';

const tmpfsMagic = 0x0102_1994;

/** Beside RAM a VM's directory holds the carrier and the device state; this leaves room for both. */
const sparesBytes = 32 * 1024 * 1024;

export class RunDirectory {
  readonly #files: VmFiles;
  #owner: HeldFile | undefined;

  private constructor(files: VmFiles) {
    this.#files = files;
  }

  /** Takes the directory, or throws when another living process has it or it cannot hold the VM. */
  static take(files: VmFiles, ramBytes: number): RunDirectory {
    makeFolder(files.dir, 0o700);
    const directory = new RunDirectory(files);
    directory.#owner = directory.#own();
    try {
      chmodSync(files.dir, 0o700);
      directory.#removeFiles();
      assertRoom(files.dir, ramBytes);
    } catch (error) {
      directory.release();
      throw error;
    }
    return directory;
  }

  /** Removes the VM's files, and the directory when nothing else is in it. */
  release(): void {
    this.#removeFiles();
    this.#owner?.release();
    this.#owner = undefined;
    try {
      rmdirSync(this.#files.dir);
    } catch {
      // Somebody else keeps files here, such as the node its sockets.
    }
  }

  #own(): HeldFile {
    const path = join(this.#files.dir, 'owner');
    const taken = takeFile(path);
    if ('release' in taken) return taken;
    const who = taken.pid === 0 ? 'another process' : `process ${taken.pid}`;
    throw new ColoError(errorCodes.host, `The run directory ${this.#files.dir} belongs to ${who}.`, {
      hint: 'A VM of this name is already running on this node: stop it first, or use another run directory.',
    });
  }

  #removeFiles(): void {
    const { ramPath, qmpPath, screenPath, consolePath, vmstatePath, deviceStatePath, clockPath } = this.#files;
    const pipes = Object.values(consolePipes(consolePath));
    const variables = join(this.#files.dir, 'variables.fd');
    for (const path of [ramPath, qmpPath, screenPath, ...pipes, vmstatePath, deviceStatePath, clockPath, variables])
      rmSync(path, { force: true });
  }
}

function assertRoom(dir: string, ramBytes: number): void {
  const stats = statfsSync(dir);
  if (stats.type !== tmpfsMagic) {
    throw new ColoError(errorCodes.host, `The run directory ${dir} is not on a tmpfs.`, {
      hint:
        'Use a directory below /dev/shm or /run: guest RAM is a file, and on a disk every page would be ' +
        'written out.',
    });
  }
  const freeBytes = stats.bavail * stats.bsize;
  // A tmpfs without a size limit reports 0 blocks.
  if (stats.blocks === 0 || freeBytes >= ramBytes + sparesBytes) return;
  const neededMib = Math.ceil((ramBytes + sparesBytes) / 2 ** 20);
  throw new ColoError(errorCodes.host, `${dir} has ${Math.floor(freeBytes / 2 ** 20)} MiB free, ${neededMib} needed.`, {
    hint: 'Enlarge the tmpfs, or give the guest less memory.',
  });
}
