// The secondary's disks: files that are always one committed epoch, and the journal of what comes after it.
//
//    FOLDER/replica.json      which epoch it is (header.ts)
//           disk0.raw ...     the replica; written during the initial copy, and then only while a checkpoint is applied
//           disk0.overlay ... qcow2 over it: what the SVM writes itself; a load throws it away, a takeover keeps it
//           journal.N         records of unapplied epochs (segment.ts)
//
//    record ─► copy ─► append to journal.N ─► held      (initial copy: write to diskN.raw ─► held)
//    complete(n)  everything of n is in the journal, and there is room for it in the replica: may be committed
//    apply(n)     header "applying n" ─► write the segments ─► header "epoch n" ─► segments removed
//
// A crash between the two headers is repaired by recover() (recovery.ts): the segments are still there, and writing
// them again gives the same. Bytes are appended in the order of their arrival, many records at a time; what waits for
// that is bounded by the primary's window. Owns the files; decides nothing.

import { assert } from '../base/assert.ts';
import type { DiskActivity } from '../base/disk-activity.ts';
import { ColoError, errorCodes } from '../base/errors.ts';
import { Fifo } from '../base/fifo.ts';
import { type Extent, lengthOf, type Run, runs } from './extents.ts';
import { headerName, type ReplicaHeader, writeHeader } from './header.ts';
import { JournalIndex, type Segment } from './journal.ts';
import { batchBytesMax, batchRecordsMax, journalMemoryBytesMax, unflushedBytesMax } from './limits.ts';
import { type DiskRecord, diskError, type Mark, parseRecord, recordKinds, type Session } from './message.ts';
import { keptPosition, refuseOwner, removeFiles } from './recovery.ts';
import { replicaName, replicaPath, segmentName } from './replica-files.ts';
import { encodeSegmentRecord } from './segment.ts';
import { writeFailure } from './space.ts';
import { flushAndClose, type Storage, type StoredFile, storageOf } from './storage.ts';
import { watched } from './watched.ts';

export interface ReplicaEvents {
  /** The journal holds everything up to `position`. */
  held(position: number): void;
  /** A file cannot be written: no checkpoint can be completed any more. */
  failed(error: ColoError): void;
}

/** A record on its way into a file. */
interface Pending {
  record: DiskRecord;
  /** Where it goes: a segment, or the replica itself during the initial copy. */
  segment: Segment | undefined;
}

export interface ApplyCost {
  records: number;
  writtenBytes: number;
}

export class Replica {
  readonly storage: Storage;
  readonly sizes: readonly number[];
  readonly counters = { records: 0, receivedBytes: 0, appliedBytes: 0, epochs: 0 };
  private readonly vm: string;
  private readonly durable: boolean;
  private readonly events: ReplicaEvents;
  private readonly disks: StoredFile[];
  private readonly segmentFiles = new Map<number, StoredFile>();
  private readonly journal: JournalIndex;
  private readonly pending = new Fifo<Pending>();
  private pumping: Promise<void> | undefined;
  private syncing = true;
  private epoch = 0;
  private readonly lineage: string;
  /** An apply was begun and not ended: its segments are needed to make a whole of the replica. */
  private applying = false;
  /** The position at which the replica of before was kept; undefined when it was begun anew. */
  readonly kept: number | undefined;
  private failure: ColoError | undefined;
  private unflushedBytes = 0;
  /** Segments of applied checkpoints are gone. */
  private removed: Promise<void> = Promise.resolve();
  /** The VM runs on here: nothing that the primary wrote counts any more. */
  private isOver = false;
  /** What is left to be done behind a takeover. */
  private clearing: Promise<unknown> = Promise.resolve();
  private readonly hashes = new Map<string, string>();

  private constructor(
    options: { vm: string; session: Session; events: ReplicaEvents },
    storage: Storage,
    { disks, kept }: { disks: StoredFile[]; kept: number | undefined },
  ) {
    this.storage = storage;
    this.vm = options.vm;
    this.sizes = options.session.sizes;
    this.durable = options.session.durable;
    this.events = options.events;
    this.disks = disks;
    this.kept = kept;
    this.lineage = options.session.lineage ?? '';
    this.journal = new JournalIndex(this.sizes.length, journalMemoryBytesMax, options.session.from ?? 0);
  }

  /**
   * Begins a session of a primary with the arbiter's `term`. What the folder held before is gone, unless the primary
   * knows what changed since; it is refused when that is the newest truth of the VM. The folder is this VM's alone.
   * `activity`: hears what its disk is asked and answers.
   */
  static async begin(options: {
    folder: string | Storage;
    vm: string;
    term: number;
    session: Session;
    events: ReplicaEvents;
    activity?: DiskActivity;
  }): Promise<Replica> {
    const { session, activity } = options;
    const storage = watched(storageOf(options.folder), activity);
    storage.make();
    refuseOwner(storage, options);
    const kept = await keptPosition(storage, options);
    const disks: StoredFile[] = [];
    try {
      // First, and on the disk: what the header of before promises is over with the first file that goes.
      const { vm } = options;
      const none = { epoch: 0, term: 0, through: 0, durable: session.durable, boot: storage.boot };
      const base =
        kept === undefined ? { lineage: '', position: 0 } : { lineage: session.lineage ?? '', position: kept };
      await writeHeader(storage, { version: 1, vm, sizes: session.sizes, state: 'syncing', ...none, ...base }, true);
      await removeFiles(storage, kept !== undefined);
      for (const [index, size] of session.sizes.entries()) {
        const disk = await storage.open(replicaName(index), kept === undefined ? 'new' : 'old');
        disks.push(disk);
        await disk.truncate(size);
      }
    } catch (cause) {
      for (const disk of disks) await disk.close();
      throw new ColoError(errorCodes.host, `the replica in ${storage.folder} cannot be made`, { cause });
    }
    return new Replica(options, storage, { disks, kept });
  }

  /** Bytes of the journal that no applied checkpoint covers. */
  get journalBytes(): number {
    return this.journal.fileBytes;
  }

  /** A record of the link. Returns why it is refused: then the peer's stream is wrong. */
  receive(payload: Uint8Array): ColoError | undefined {
    const record = parseRecord(payload, this.sizes);
    if (record instanceof ColoError) return record;
    // The payload is the link's receive buffer.
    record.data = Buffer.from(record.data);
    const segment = this.syncing ? undefined : this.journal.open;
    const wrong = this.syncing ? this.journal.skip(record) : this.journal.add(record);
    if (wrong !== undefined) return wrong;
    this.counters.records += 1;
    this.counters.receivedBytes += record.data.length;
    // After a failure nothing can be completed any more: the primary is told, and ends the session.
    if (this.failure !== undefined || this.isOver) return undefined;
    this.pending.push({ record, segment });
    this.pump();
    return undefined;
  }

  /** The primary captured: from here on records belong to a later epoch, and wait for it. */
  mark(mark: Mark): ColoError | undefined {
    this.syncing = false;
    return this.journal.mark(mark);
  }

  abort(epoch: number): void {
    this.journal.abort(epoch);
  }

  /** protect.verify: what disk `disk` must be after applying `epoch`. */
  expectHash(expected: { epoch: number; disk: number; hash: string }): void {
    this.hashes.set(`${expected.epoch} ${expected.disk}`, expected.hash);
  }

  /** Resolves when the checkpoint's writes are all here and there is room to apply them; rejects when not. */
  async complete(epoch: number): Promise<void> {
    const covered = this.journal.covered(epoch);
    if (covered === undefined) throw diskError(`checkpoint ${epoch} came without its mark for the disks`);
    await this.written();
    if (this.failure !== undefined) throw this.failure;
    if (this.durable && this.epoch === 0) await this.flushCopy();
    for (const segment of covered.segments)
      for (const [disk, extents] of segment.disks.entries())
        for (const run of runs(extents, { bytes: Number.POSITIVE_INFINITY, extents: Number.POSITIVE_INFINITY }))
          if (run.kind === 'data') await this.disk(disk).reserve(run.start, lengthOf(run.extents));
  }

  /** The initial copy was written without flushing; from the first epoch on the replica is said to be durable. */
  private async flushCopy(): Promise<void> {
    try {
      await this.flushDisks();
    } catch (error) {
      throw writeFailure(this.storage.folder, error);
    }
  }

  /** Brings the replica to `epoch`. The SVM stands still, and the checkpoint is committed: there is no way back. */
  async apply(epoch: number): Promise<ApplyCost> {
    const covered = this.journal.covered(epoch);
    if (covered === undefined) throw diskError(`the disks of checkpoint ${epoch} are not here`);
    // An older one that is still there when this apply is interrupted would be written again, over what came behind it.
    await this.removed;
    const cost: ApplyCost = { records: 0, writtenBytes: 0 };
    const through = covered.segments.at(-1)?.serial ?? 0;
    const { position } = covered;
    if (covered.segments.some((segment) => segment.records > 0)) {
      this.applying = true;
      await this.writeHeader('applying', epoch, { through, position });
      for (const segment of covered.segments) {
        cost.records += segment.records;
        for (const [disk, extents] of segment.disks.entries())
          for (const run of runs(extents, { bytes: batchBytesMax, extents: batchRecordsMax }))
            cost.writtenBytes += await this.writeRun(disk, run, segment);
      }
      if (this.durable) await this.flushDisks();
    }
    await this.writeHeader('epoch', epoch, { position });
    this.applying = false;
    this.epoch = epoch;
    this.counters.epochs += 1;
    this.counters.appliedBytes += cost.writtenBytes;
    this.removed = this.removeSegments(this.journal.applied(epoch));
    this.removed.catch(() => undefined);
    return cost;
  }

  /** protect.verify: whether every disk is what the primary's was; null when the primary did not say. */
  async verify(epoch: number, hash: (path: string, bytes: number) => Promise<string>): Promise<boolean | null> {
    let verified: boolean | null = null;
    for (const [disk, bytes] of this.sizes.entries()) {
      const expected = this.hashes.get(`${epoch} ${disk}`);
      if (expected === undefined) continue;
      const found = await hash(replicaPath(this.storage.folder, disk), bytes);
      verified = (verified ?? true) && found === expected;
    }
    this.hashes.clear();
    // It is not what its header says: the next session must not keep it.
    if (verified === false) await this.writeHeader('syncing', 0);
    return verified;
  }

  /**
   * The VM runs on here: what no applied checkpoint covers never happened, and is not waited for. The files are QEMU's
   * from now on. False when they could not be labelled so: then the replica must stay the epoch that its header says.
   * It is the caller's not to wait for a disk that hangs.
   */
  async takeOver(term: number): Promise<boolean> {
    this.pending.clear();
    this.isOver = true;
    let isLabelled = false;
    try {
      await this.writeHeader('owner', this.epoch, { term });
      isLabelled = true;
    } catch (error) {
      // The VM has nobody else: it runs on a disk that cannot be labelled rather than not at all.
      this.events.failed(writeFailure(this.storage.folder, error));
    }
    // QEMU flushes what it writes itself; what we wrote must reach the disk as well, but the guest need not wait.
    const disks = this.disks.splice(0);
    this.clearing = Promise.allSettled([
      this.storage.flushText(headerName),
      flushAndClose(disks),
      this.removed,
      this.written().then(() => this.removeSegments(this.journal.discard())),
    ]);
    return isLabelled;
  }

  /** Ends the session; the replica stays what it is. */
  async close(): Promise<void> {
    this.pending.clear();
    await this.clearing;
    await this.written();
    await this.removed.catch(() => undefined);
    if (this.applying) for (const file of this.segmentFiles.values()) await file.close();
    else await this.removeSegments(this.journal.discard());
    for (const disk of this.disks.splice(0)) await disk.close();
  }

  // ---- into the files ----

  /** Resolves when nothing waits to be written any more. */
  private async written(): Promise<void> {
    while (this.pumping !== undefined) await this.pumping;
  }

  private pump(): void {
    if (this.pumping !== undefined || this.failure !== undefined) return;
    this.pumping = this.writePending()
      .catch((error: unknown) => {
        this.failure = writeFailure(this.storage.folder, error);
        this.pending.clear();
        this.events.failed(this.failure);
      })
      .finally(() => {
        this.pumping = undefined;
        if (this.pending.length > 0) this.pump();
      });
  }

  private async writePending(): Promise<void> {
    for (let batch = this.nextBatch(); batch.length > 0; batch = this.nextBatch()) {
      const segment = batch[0]?.segment;
      if (segment === undefined) for (const { record } of batch) await this.writeDirectly(record);
      else await this.append(segment, batch);
      this.events.held(batch.at(-1)?.record.position ?? 0);
    }
  }

  /** The oldest records that go to one place. */
  private nextBatch(): Pending[] {
    const batch: Pending[] = [];
    let bytes = 0;
    for (let next = this.pending.peek(); next !== undefined; next = this.pending.peek()) {
      if (batch.length > 0 && next.segment !== batch[0]?.segment) break;
      if (batch.length >= batchRecordsMax || bytes > batchBytesMax) break;
      batch.push(next);
      bytes += next.record.data.length;
      this.pending.shift();
    }
    return batch;
  }

  private async writeDirectly(record: DiskRecord): Promise<void> {
    const { disk, offset, length, data } = record;
    if (record.kind === recordKinds.zeroes) await this.disk(disk).zero(offset, length);
    else await this.disk(disk).write([data], offset);
    await this.wrote(data.length);
  }

  /** A durable replica is flushed as it is written, so that no flush is of all at once. */
  private async wrote(bytes: number): Promise<void> {
    this.unflushedBytes += bytes;
    if (this.durable && this.unflushedBytes >= unflushedBytesMax) await this.flushDisks();
  }

  /** One after the other: each takes a thread of the process for as long as the disk hangs. */
  private async flushDisks(): Promise<void> {
    this.unflushedBytes = 0;
    for (const disk of this.disks) await disk.flush();
  }

  private async append(segment: Segment, batch: readonly Pending[]): Promise<void> {
    const file = await this.segmentFile(segment.serial);
    // Appends, so no position: the file is ours alone and written in order.
    await file.write(batch.flatMap(({ record }) => encodeSegmentRecord(record)));
    if (this.durable) await file.flush();
  }

  private async segmentFile(serial: number): Promise<StoredFile> {
    const known = this.segmentFiles.get(serial);
    if (known !== undefined) return known;
    const file = await this.storage.open(segmentName(serial), 'once');
    this.segmentFiles.set(serial, file);
    return file;
  }

  private async writeRun(disk: number, run: Run, segment: Segment): Promise<number> {
    if (run.kind === 'zeroes') {
      await this.disk(disk).zero(run.start, run.end - run.start);
      return 0;
    }
    const parts: Uint8Array[] = [];
    for (const extent of run.extents) parts.push(extent.data ?? (await this.readBack(segment, extent)));
    await this.disk(disk).write(parts, run.start);
    await this.wrote(lengthOf(run.extents));
    return lengthOf(run.extents);
  }

  private async readBack(segment: Segment, extent: Extent): Promise<Uint8Array> {
    const file = await this.segmentFile(segment.serial);
    const bytes = Buffer.allocUnsafe(extent.end - extent.start);
    if ((await file.read(bytes, extent.fileAt ?? 0)) === bytes.length) return bytes;
    throw diskError(`the journal in ${this.storage.folder} is shorter than what was written to it`);
  }

  private async removeSegments(segments: readonly Segment[]): Promise<void> {
    for (const { serial } of segments) {
      await this.segmentFiles.get(serial)?.close();
      this.segmentFiles.delete(serial);
      await this.storage.remove(segmentName(serial));
    }
  }

  private disk(index: number): StoredFile {
    const disk = this.disks[index];
    assert(disk !== undefined, 'a record names a disk of the session');
    return disk;
  }

  private writeHeader(
    state: ReplicaHeader['state'],
    epoch: number,
    { through = 0, term = 0, position }: { through?: number; term?: number; position?: number } = {},
  ): Promise<void> {
    const { vm, durable } = this;
    const { boot } = this.storage;
    const base = position === undefined ? { lineage: '', position: 0 } : { lineage: this.lineage, position };
    const header = { version: 1 as const, vm, sizes: [...this.sizes], state, epoch, term, through, durable, boot };
    return writeHeader(this.storage, { ...header, ...base }, durable);
  }
}
