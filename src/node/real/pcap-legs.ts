// What each guest said and what was released, as pcap files (network.pcap in the spec): one file per leg and node.
//
//    VM-NODE-primary.pcap     as the PVM sent it            VM-NODE-released.pcap    as it left to the network
//    VM-NODE-secondary.pcap   the SVM's, in client space
//
// Bounded: a file that is full is renamed to .old.pcap, in place of the one before. What the disk is too slow for, or has no
// room for, is left out and counted (base/writer.ts): a recording never holds up a frame, and never costs a takeover. For
// looking at a problem, not for recording for ever.

import { join } from 'node:path';
import { wallTime } from '../../base/clock.ts';
import { Writer } from '../../base/writer.ts';
import { pcapHeader, pcapRecord } from '../../packet/pcap.ts';
import { pcapBacklogBytesMax, pcapFileBytesMax } from '../limits.ts';

export type Leg = 'primary' | 'secondary' | 'released';

export class PcapLegs {
  private readonly prefix: string;
  private readonly fileBytes: number;
  private readonly files = new Map<Leg, Writer>();
  private isClosed = false;

  constructor(directory: string, prefix: string, fileBytes = pcapFileBytesMax) {
    this.fileBytes = fileBytes;
    this.prefix = join(directory, prefix);
  }

  write(leg: Leg, frame: Uint8Array, now: number): void {
    if (!this.isClosed) this.fileOf(leg).write(pcapRecord(frame, wallTime(now)));
  }

  close(): void {
    this.isClosed = true;
    for (const file of this.files.values()) file.close();
    this.files.clear();
  }

  private fileOf(leg: Leg): Writer {
    const known = this.files.get(leg);
    if (known !== undefined) return known;
    const file = new Writer({
      ...{ path: `${this.prefix}-${leg}.pcap`, old: `${this.prefix}-${leg}.old.pcap`, bytesMax: this.fileBytes },
      ...{ header: pcapHeader, waitingBytesMax: pcapBacklogBytesMax },
    });
    this.files.set(leg, file);
    return file;
  }
}
