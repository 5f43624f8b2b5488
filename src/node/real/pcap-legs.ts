// What each guest said and what was released, as pcap files (network.pcap in the spec): one file per leg and node.
//
//    VM-NODE-primary.pcap     as the PVM sent it            VM-NODE-released.pcap    as it left to the network
//    VM-NODE-secondary.pcap   the SVM's, in client space
//
// Bounded: a file that is full is renamed to .old.pcap, in place of the one before. Frames that the disk is too slow
// for are left out. For looking at a problem, not for recording for ever: a folder that is missing, gone or full ends
// the recording, which its owner is told, and nothing else. Nothing here throws, and nothing waits for a disk: a
// takeover passes by.

import { close, createWriteStream, type NoParamCallback, open, type WriteStream, write, writev } from 'node:fs';
import { mkdir, rename } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { wallTime } from '../../base/clock.ts';
import { errorText } from '../../base/errors.ts';
import { pcapHeader, pcapRecord } from '../../packet/pcap.ts';
import { pcapBacklogBytesMax, pcapFileBytesMax } from '../limits.ts';

export type Leg = 'primary' | 'secondary' | 'released';

interface LegFile {
  stream: WriteStream;
  /** Resolves when it is open, or cannot be. */
  opened: Promise<void>;
  bytes: number;
}

export class PcapLegs {
  /** Frames that are in no file because the disk was too slow. */
  leftOut = 0;
  private readonly prefix: string;
  private readonly failed: (why: string) => void;
  private readonly fileBytes: number;
  private readonly files = new Map<Leg, LegFile>();
  /** Files that were full, and have something to be written yet. */
  private readonly ending = new Set<Promise<void>>();
  private isClosed = false;

  /** `failed`: why nothing is recorded any more. */
  constructor(directory: string, prefix: string, failed: (why: string) => void, fileBytes = pcapFileBytesMax) {
    this.fileBytes = fileBytes;
    this.prefix = join(directory, prefix);
    this.failed = failed;
  }

  write(leg: Leg, frame: Uint8Array, now: number): void {
    if (this.isClosed) return;
    const file = this.fileOf(leg);
    if (file.stream.writableLength > pcapBacklogBytesMax) {
      this.leftOut += 1;
      return;
    }
    const record = pcapRecord(frame, wallTime(now));
    file.stream.write(record);
    file.bytes += record.length;
  }

  /** Resolves when everything is in the files. */
  async close(): Promise<void> {
    this.isClosed = true;
    for (const { stream } of this.files.values()) this.end(stream);
    this.files.clear();
    await Promise.all(this.ending);
  }

  private fileOf(leg: Leg): LegFile {
    const file = this.files.get(leg);
    if (file !== undefined && file.bytes < this.fileBytes) return file;
    const path = `${this.prefix}-${leg}.pcap`;
    if (file !== undefined) this.end(file.stream);
    const prepare = async (): Promise<void> => {
      await file?.opened;
      if (file === undefined) await makeFolder(dirname(path));
      else await rename(path, `${this.prefix}-${leg}.old.pcap`);
    };
    const stream = openAfter(prepare, path);
    const opened = new Promise<void>(
      (resolve) => void stream.once('open', () => resolve()).once('error', () => resolve()),
    );
    stream.on('error', (error) => this.fail(path, error));
    stream.write(pcapHeader);
    const fresh = { stream, opened, bytes: pcapHeader.length };
    this.files.set(leg, fresh);
    return fresh;
  }

  private end(stream: WriteStream): void {
    const ended = new Promise<void>((resolve) => {
      stream.once('close', resolve);
      stream.end();
    });
    this.ending.add(ended);
    void ended.then(() => this.ending.delete(ended));
  }

  private fail(path: string, error: Error): void {
    if (this.isClosed) return;
    void this.close();
    this.failed(`pcap files are not written any more: ${path}: ${errorText(error)} (network.pcap in the spec)`);
  }
}

/** Only the last part of the path is made: a folder further up that is missing is a mistake in the spec. */
async function makeFolder(folder: string): Promise<void> {
  await mkdir(folder).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'EEXIST') throw error;
  });
}

/** A file for writing, opened when `prepare` is done; what is written before waits. */
function openAfter(prepare: () => Promise<void>, path: string): WriteStream {
  type Opened = (error: NodeJS.ErrnoException | null, descriptor: number) => void;
  return createWriteStream(path, {
    fs: {
      open: (name: string, flags: string, mode: number, opened: Opened) => {
        prepare().then(
          () => open(name, flags, mode, opened),
          (error: NodeJS.ErrnoException) => opened(error, -1),
        );
      },
      ...{ write, writev, close: (descriptor: number, closed: NoParamCallback) => close(descriptor, closed) },
    },
  });
}
