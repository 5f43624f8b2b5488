// Which records wait for which checkpoint: the index of the secondary's journal. Pure; the files are replica.ts.
//
//    records    r1 r2 r3 │ r4 r5 │ r6 ...
//                    mark(7)   mark(8)
//    segments   ── 1 ──── │ ─ 2 ─ │ ─ 3 (open)
//
//    apply(7)   segment 1, then it is gone
//    abort(7)   segment 1 stays and belongs to the next mark: its records were written all the same
//    discard    at a takeover: what no applied checkpoint covers never happened
//
// Segments are replayed in order, each holds its newest bytes only (extents.ts). Replaying one twice gives the same.

import { assert } from '../base/assert.ts';
import type { ColoError } from '../base/errors.ts';
import { ExtentMap } from './extents.ts';
import { journalMemoryBytesMax } from './limits.ts';
import { type DiskRecord, diskError, type Mark, recordKinds } from './message.ts';
import { segmentRecordBytes, segmentRecordHeadBytes } from './segment.ts';

export interface Segment {
  readonly serial: number;
  readonly disks: ExtentMap[];
  records: number;
  /** Bytes of its file. */
  fileBytes: number;
  /** Data of it that is kept in memory. */
  memoryBytes: number;
}

export class JournalIndex {
  /** The position of the newest record. */
  position: number;
  private readonly diskCount: number;
  private readonly memoryBytesMax: number;
  private segments: Segment[];
  private nextSerial = 1;
  private readonly marks = new Map<number, { serial: number; position: number }>();

  /** `from`: the position before the first record. */
  constructor(diskCount: number, memoryBytesMax: number = journalMemoryBytesMax, from = 0) {
    this.position = from;
    this.diskCount = diskCount;
    this.memoryBytesMax = memoryBytesMax;
    this.segments = [this.newSegment()];
  }

  get memoryBytes(): number {
    return this.segments.reduce((sum, segment) => sum + segment.memoryBytes, 0);
  }

  /** Bytes of files that wait to be applied. */
  get fileBytes(): number {
    return this.segments.reduce((sum, segment) => sum + segment.fileBytes, 0);
  }

  get open(): Segment {
    const last = this.segments.at(-1);
    assert(last !== undefined, 'a journal has an open segment');
    return last;
  }

  /** Counts a record that is not journaled, because it was written to the replica (the initial copy). */
  skip(record: DiskRecord): ColoError | undefined {
    if (record.position !== this.position + 1) return outOfOrder(record, this.position);
    this.position = record.position;
    return undefined;
  }

  /** Adds a record, whose data must be its own, to the open segment. */
  add(record: DiskRecord): ColoError | undefined {
    const wrong = this.skip(record);
    if (wrong !== undefined) return wrong;
    const segment = this.open;
    const keeps = this.memoryBytes + record.data.length <= this.memoryBytesMax;
    const isData = record.kind === recordKinds.data;
    segment.disks[record.disk]?.add({
      start: record.offset,
      end: record.offset + record.length,
      data: isData && keeps ? record.data : undefined,
      fileAt: isData ? segment.fileBytes + segmentRecordHeadBytes : undefined,
    });
    if (keeps) segment.memoryBytes += record.data.length;
    segment.records += 1;
    segment.fileBytes += segmentRecordBytes(record);
    return undefined;
  }

  /** A capture: everything so far belongs to it. */
  mark({ epoch, position }: Mark): ColoError | undefined {
    if (position !== this.position)
      return diskError(`checkpoint ${epoch} covers ${position} disk records, but ${this.position} arrived`);
    this.marks.set(epoch, { serial: this.open.serial, position });
    this.segments.push(this.newSegment());
    return undefined;
  }

  /** That capture never happened. */
  abort(epoch: number): void {
    this.marks.delete(epoch);
  }

  /** The position up to which a checkpoint covers the disks, and the segments it needs; undefined without its mark. */
  covered(epoch: number): { position: number; segments: Segment[] } | undefined {
    const mark = this.marks.get(epoch);
    if (mark === undefined) return undefined;
    return { position: mark.position, segments: this.segments.filter((segment) => segment.serial <= mark.serial) };
  }

  /** The checkpoint was applied: returns the segments that are of no use any more. */
  applied(epoch: number): Segment[] {
    const gone = this.covered(epoch)?.segments ?? [];
    this.segments = this.segments.filter((segment) => !gone.includes(segment));
    for (const known of this.marks.keys()) if (known <= epoch) this.marks.delete(known);
    return gone;
  }

  /** Everything that was not applied never happened: returns all segments. */
  discard(): Segment[] {
    const gone = this.segments;
    this.segments = [this.newSegment()];
    this.marks.clear();
    return gone;
  }

  private newSegment(): Segment {
    const disks = Array.from({ length: this.diskCount }, () => new ExtentMap());
    const segment = { serial: this.nextSerial, disks, records: 0, fileBytes: 0, memoryBytes: 0 };
    this.nextSerial += 1;
    return segment;
  }
}

function outOfOrder(record: DiskRecord, newest: number): ColoError {
  return diskError(`disk record ${record.position} came behind ${newest}`);
}
