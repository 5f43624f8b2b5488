// A file for staged pages that do not fit in memory: without a name from the beginning, so that it is gone with the
// process whatever happens. The folder should not be on tmpfs, or the bytes are in memory after all.
//
// A disk may hang, and the event loop carries the beats: so nothing here waits for it. Writes are taken at once and
// done one after the other; whether all of them were done, `settled` says, before the checkpoint is committed.

import { randomBytes } from 'node:crypto';
import { constants } from 'node:fs';
import { type FileHandle, open, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import type { DiskActivity } from '../base/disk-activity.ts';
import { ColoError, errorCodes } from '../base/errors.ts';

/** Where one checkpoint's overflow goes. */
export interface Spill {
  /** Appends a copy; returns the position to read from. */
  write(data: Uint8Array): number;
  /** Taken, and not yet written. */
  readonly waitingBytes: number;
  /** Resolves when everything is written; rejects when something could not be. */
  settled(): Promise<void>;
  /** Fills `target` from `position`; rejects when that is not possible. */
  read(position: number, target: Uint8Array): Promise<void>;
  close(): void;
}

export class SpillFile implements Spill {
  waitingBytes = 0;
  private readonly file: Promise<FileHandle>;
  private last: Promise<void>;
  private end = 0;

  private constructor(file: Promise<FileHandle>) {
    this.file = file;
    this.last = file.then(() => undefined);
    this.last.catch(() => undefined);
  }

  static open(folder: string): SpillFile {
    return new SpillFile(openUnnamed(folder));
  }

  write(data: Uint8Array): number {
    const position = this.end;
    const bytes = Uint8Array.from(data);
    this.end += bytes.length;
    this.waitingBytes += bytes.length;
    this.last = this.last
      .then(() => this.writeAll(bytes, position))
      .finally(() => {
        this.waitingBytes -= bytes.length;
      });
    this.last.catch(() => undefined);
    return position;
  }

  settled(): Promise<void> {
    return this.last;
  }

  async read(position: number, target: Uint8Array): Promise<void> {
    await this.last;
    const file = await this.file;
    for (let at = 0; at < target.length; ) {
      const { bytesRead } = await file.read(target, at, target.length - at, position + at);
      if (bytesRead === 0)
        throw new ColoError(errorCodes.checkpoint, 'the file of staged pages is shorter than what was written');
      at += bytesRead;
    }
  }

  close(): void {
    const close = async () => (await this.file).close();
    this.last.then(close, close).catch(() => undefined);
  }

  private async writeAll(bytes: Uint8Array, position: number): Promise<void> {
    const file = await this.file;
    for (let at = 0; at < bytes.length; )
      at += (await file.write(bytes, at, bytes.length - at, position + at)).bytesWritten;
  }
}

/** A spill whose disk, that of `folder`, is noticed when it hangs. */
export function watchedSpill(spill: Spill, folder: string, activity: DiskActivity): Spill {
  return {
    write: (data) => {
      const position = spill.write(data);
      activity.track(folder, spill.settled()).catch(() => undefined);
      return position;
    },
    get waitingBytes() {
      return spill.waitingBytes;
    },
    settled: () => spill.settled(),
    read: (position, target) => activity.track(folder, spill.read(position, target)),
    close: () => spill.close(),
  };
}

async function openUnnamed(folder: string): Promise<FileHandle> {
  const path = join(folder, `.spill-${randomBytes(8).toString('hex')}`);
  const file = await open(path, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL, 0o600);
  await unlink(path);
  return file;
}
