// What each guest said and what was released, as pcap files (network.pcap in the spec): one file per leg and node.
//
//    VM-NODE-primary.pcap     as the PVM sent it            VM-NODE-released.pcap    as it left to the network
//    VM-NODE-secondary.pcap   the SVM's, in client space
//
// Bounded: a file that is full is renamed to .old.pcap, in place of the one before. Frames that the disk is too slow for
// are left out. For looking at a problem, not for recording for ever.

import { createWriteStream, mkdirSync, renameSync, type WriteStream } from 'node:fs';
import { join } from 'node:path';
import { wallTime } from '../base/clock.ts';
import type { Log } from '../base/log.ts';
import { pcapHeader, pcapRecord } from '../packet/pcap.ts';

export type Leg = 'primary' | 'secondary' | 'released';

/** A file holds up to this; each leg has two. */
const fileBytesMax = 64 << 20;
/** Bytes that wait for the disk; beyond it frames are left out. */
const backlogBytesMax = 4 << 20;

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
  private readonly files = new Map<Leg, LegFile>();
  private isClosed = false;

  constructor(directory: string, prefix: string, log: Log) {
    mkdirSync(directory, { recursive: true });
    this.prefix = join(directory, prefix);
    this.log = log;
  }

  write(leg: Leg, frame: Uint8Array, now: number): void {
    if (this.isClosed) return;
    const file = this.fileOf(leg);
    if (file.stream.writableLength > backlogBytesMax) {
      this.leftOut += 1;
      return;
    }
    const record = pcapRecord(frame, wallTime(now));
    file.stream.write(record);
    file.bytes += record.length;
  }

  close(): void {
    this.isClosed = true;
    for (const { stream } of this.files.values()) stream.end();
    this.files.clear();
  }

  private fileOf(leg: Leg): LegFile {
    const file = this.files.get(leg);
    if (file !== undefined && file.bytes < fileBytesMax) return file;
    const path = `${this.prefix}-${leg}.pcap`;
    if (file !== undefined) {
      file.stream.end();
      renameSync(path, `${this.prefix}-${leg}.old.pcap`);
    }
    const stream = createWriteStream(path);
    stream.on('error', (error) => this.log.warn({ error: error.message, path }, 'a pcap file cannot be written'));
    stream.write(pcapHeader);
    const fresh = { path, stream, bytes: pcapHeader.length };
    this.files.set(leg, fresh);
    return fresh;
  }
}
