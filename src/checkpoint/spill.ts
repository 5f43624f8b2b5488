// A file for staged pages that do not fit in memory: without a name from the beginning, so that it is gone with the
// process whatever happens. Reads and writes are synchronous: they hit the page cache, and the secondary has nothing
// more urgent to do than to stage. The folder should not be on tmpfs, or the bytes are in memory after all.

import { randomBytes } from 'node:crypto';
import { closeSync, constants, openSync, readSync, unlinkSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { ColoError, errorCodes } from '../base/errors.ts';

/** Where one checkpoint's overflow goes. */
export interface Spill {
  /** Appends; returns the position to read from. Throws when there is no space. */
  write(data: Uint8Array): number;
  /** Fills `target` from `position`; throws when that is not possible. */
  read(position: number, target: Uint8Array): void;
  close(): void;
}

export class SpillFile implements Spill {
  private readonly descriptor: number;
  private end = 0;

  private constructor(descriptor: number) {
    this.descriptor = descriptor;
  }

  static open(folder: string): SpillFile {
    const path = join(folder, `.spill-${randomBytes(8).toString('hex')}`);
    const descriptor = openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL, 0o600);
    unlinkSync(path);
    return new SpillFile(descriptor);
  }

  write(data: Uint8Array): number {
    const position = this.end;
    for (let at = 0; at < data.length; ) at += writeSync(this.descriptor, data, at, data.length - at, position + at);
    this.end += data.length;
    return position;
  }

  read(position: number, target: Uint8Array): void {
    for (let at = 0; at < target.length; ) {
      const bytes = readSync(this.descriptor, target, at, target.length - at, position + at);
      if (bytes === 0)
        throw new ColoError(errorCodes.checkpoint, 'the file of staged pages is shorter than what was written');
      at += bytes;
    }
  }

  close(): void {
    closeSync(this.descriptor);
  }
}
