// What each guest said and what was released, as pcap files (network.pcap in the spec): one file per leg and node.
//
//    VM-NODE-primary.pcap     as the PVM sent it            VM-NODE-released.pcap    as it left to the network
//    VM-NODE-secondary.pcap   the SVM's, in client space
//
// Bounded: a file that is full is renamed to .old.pcap, in place of the one before. Frames that the disk is too slow for
// are left out. For looking at a problem, not for recording for ever.

import { createWriteStream, existsSync, mkdirSync, openSync, renameSync, type WriteStream } from 'node:fs';
import { join } from 'node:path';
import { wallTime } from '../../base/clock.ts';
import { ColoError, errorCodes, errorText } from '../../base/errors.ts';
import type { Log } from '../../base/log.ts';
import { pcapHeader, pcapRecord } from '../../packet/pcap.ts';
import { pcapBacklogBytesMax, pcapFileBytesMax } from '../limits.ts';

export type Leg = 'primary' | 'secondary' | 'released';

interface LegFile {
  path: string;
  stream: WriteStream;
  bytes: number;
}

export class PcapLegs {
  /** Frames that are in no file because the disk was too slow. */
  leftOut = 0;
  private readonly prefix: string;
  private readonly log: Log;
  private readonly fileBytes: number;
  private readonly files = new Map<Leg, LegFile>();
  private isClosed = false;

  constructor(directory: string, prefix: string, log: Log, fileBytes = pcapFileBytesMax) {
    this.fileBytes = fileBytes;
    makeFolder(directory);
    this.prefix = join(directory, prefix);
    this.log = log;
  }

  write(leg: Leg, frame: Uint8Array, now: number): void {
    if (this.isClosed) return;
    const file = this.tryFileOf(leg);
    if (file === undefined) return;
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
    const all = [...this.files.values()].map(({ stream }) => stream);
    this.files.clear();
    await Promise.all(all.map((stream) => new Promise<void>((resolve) => stream.end(() => resolve()))));
  }

  /** A folder that has gone, or is full, ends the recording, and nothing else. */
  private tryFileOf(leg: Leg): LegFile | undefined {
    try {
      return this.fileOf(leg);
    } catch (error) {
      this.log.warn({ error: errorText(error) }, 'pcap files cannot be written any more');
      void this.close();
      return undefined;
    }
  }

  private fileOf(leg: Leg): LegFile {
    const file = this.files.get(leg);
    if (file !== undefined && file.bytes < this.fileBytes) return file;
    const path = `${this.prefix}-${leg}.pcap`;
    if (file !== undefined) {
      file.stream.end();
      renameSync(path, `${this.prefix}-${leg}.old.pcap`);
    }
    const stream = createWriteStream(path, { fd: openSync(path, 'w') });
    stream.on('error', (error) => this.log.warn({ error: error.message, path }, 'a pcap file cannot be written'));
    stream.write(pcapHeader);
    const fresh = { path, stream, bytes: pcapHeader.length };
    this.files.set(leg, fresh);
    return fresh;
  }
}

/** Only the last part of the path is made: a folder further up that is missing is a mistake in the spec. */
function makeFolder(directory: string): void {
  try {
    mkdirSync(directory);
  } catch (cause) {
    if (existsSync(directory)) return;
    throw new ColoError(errorCodes.input, `cannot make the folder ${directory} for pcap files`, {
      cause,
      hint: 'correct network.pcap in the spec',
    });
  }
}
