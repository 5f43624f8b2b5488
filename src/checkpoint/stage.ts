// Staging on the secondary: a checkpoint is all or nothing, and this is where it becomes all.
//
//    begin ─► pages ... ─► state ─► end          complete: totals and hash agree, every batch was decoded once
//      │        any message wrong, too much, in the wrong place, of another epoch: dropped whole, refused with a reason
//      └── begin again: what was being received is dropped, it never happened
//
// At most one complete checkpoint waits to be applied while one more is being received; the end of that one before the
// first was released is refused, since the primary was to wait for `applied`.
//
// Why every batch is decoded on arrival: from the commit on the SVM may be overwritten, and a batch that cannot be
// decoded then would leave no state to run at all. The decoded pages are kept while they fit, so that nothing but
// copying is left while the SVM stands still; beyond half of stagedBytesMax the compressed bytes are kept instead,
// beyond stagedBytesMax they go to the spill file, and without one the checkpoint is refused.
//
// Differences (delta.ts) are made pages with the shadow, on arrival where the pages are kept, else while they are
// applied: each page comes once, so its shadow is still that of the base then. While a checkpoint waits to be applied
// the shadow is older than the base, and differences are kept as they came.
//
// Pure: the spill is a port. Rounds of the initial copying are not staged: their batches are handed out at once,
// because there is no earlier state of this session to protect. After the first commit a round is refused.

import { crc32 } from 'node:zlib';
import { assert } from '../base/assert.ts';
import { ColoError, errorText } from '../base/errors.ts';
import { PageRuns } from '../base/page-runs.ts';
import type { Compressor } from './compress.ts';
import { addBase } from './delta.ts';
import { batchRawBytesMax, stagedBytesMax } from './limits.ts';
import {
  type Begin,
  type CaptureState,
  checkpointError,
  checkpointTypes,
  type Encoding,
  type Pages,
  parseBegin,
  parseEnd,
  parsePages,
  parseState,
} from './message.ts';
import type { Spill } from './spill.ts';
import { agrees, type Receiving, StagedCheckpoint, type StageResult, type StoredBatch } from './staged.ts';

export interface StagingOptions {
  /** Bytes of guest RAM: no page lies beyond. */
  ramBytes: number;
  compressor: Compressor;
  /** The RAM of the newest applied checkpoint, to which differences are added; without it they are refused. */
  shadow?: Uint8Array;
  /** What is wrong with a state whose parts are opaque here; such a checkpoint is refused. */
  wrongWith?: (state: CaptureState) => string | undefined;
  /** Opens the overflow of one checkpoint; without it one that does not fit in memory is refused. */
  openSpill?: () => Spill;
  /** Page contents held in memory; limits.stagedBytesMax unless a test says otherwise. */
  stagedBytesMax?: number;
}

export class Staging {
  readonly counters = { completed: 0, refused: 0, abandoned: 0, ignored: 0, spilledBytes: 0 };
  private readonly ramBytes: number;
  private readonly bytesMax: number;
  private readonly compressor: Compressor;
  private readonly shadow: Uint8Array | undefined;
  private readonly openSpill: (() => Spill) | undefined;
  private readonly wrongWith: (state: CaptureState) => string | undefined;
  private receiving: Receiving | undefined;
  private staged: { checkpoint: StagedCheckpoint; receiving: Receiving } | undefined;
  private newestComplete = 0;
  private readonly scratch = Buffer.allocUnsafeSlow(batchRawBytesMax);
  private spillScratch: Buffer | undefined;

  constructor(options: StagingOptions) {
    this.ramBytes = options.ramBytes;
    this.compressor = options.compressor;
    this.shadow = options.shadow;
    this.openSpill = options.openSpill;
    this.wrongWith = options.wrongWith ?? (() => undefined);
    this.bytesMax = options.stagedBytesMax ?? stagedBytesMax;
  }

  /** The checkpoint that waits to be applied. On a takeover it must be applied first. */
  complete(): StagedCheckpoint | undefined {
    return this.staged?.checkpoint;
  }

  /** Epoch of the newest checkpoint that was complete; 0 before the first. */
  get committedEpoch(): number {
    return this.newestComplete;
  }

  /** Page contents held in memory now. */
  get heldBytes(): number {
    return (this.staged?.receiving.storedBytes ?? 0) + (this.receiving?.storedBytes ?? 0);
  }

  /** The complete checkpoint was applied: its memory is given back. */
  release(epoch: number): void {
    assert(this.staged?.checkpoint.epoch === epoch, `checkpoint ${epoch} is not the one that is staged`);
    this.staged.receiving.spill?.close();
    this.staged = undefined;
  }

  /** Bytes of what is received that wait for the spill file. */
  get spillWaitingBytes(): number {
    return this.receiving?.spill?.waitingBytes ?? 0;
  }

  /** Resolves when the spill file has what it was given so far, or has failed. */
  async spillCaughtUp(): Promise<void> {
    await this.receiving?.spill?.settled().catch(() => undefined);
  }

  /**
   * Resolves when the staged checkpoint may be committed; rejects when a part of it could not be spilled. Undefined
   * when there is nothing to wait for.
   */
  settled(epoch: number): Promise<void> | undefined {
    const spill = this.staged?.checkpoint.epoch === epoch ? this.staged.receiving.spill : undefined;
    return spill === undefined ? undefined : this.spilled(epoch, spill);
  }

  private async spilled(epoch: number, spill: Spill): Promise<void> {
    const { staged } = this;
    try {
      await spill.settled();
    } catch (error) {
      if (this.staged === staged) this.withdraw();
      throw checkpointError(`checkpoint ${epoch} is refused: it does not fit in memory, and ${spillingFailed(error)}`);
    }
  }

  /** Drops what was not complete, for good: the link is gone. A complete checkpoint stays. */
  abandon(): void {
    if (this.receiving === undefined) return;
    this.counters.abandoned += 1;
    this.drop();
  }

  /** Gives back what it holds: nothing is received or applied here any more. */
  close(): void {
    this.abandon();
    this.staged?.receiving.spill?.close();
  }

  /** Takes one message of the bulk link. The payload is not kept. */
  receive(type: number, payload: Uint8Array): StageResult {
    if (type === checkpointTypes.begin) return this.onBegin(payload);
    const receiving = this.receiving;
    if (receiving === undefined) {
      // What follows a refused message until the next begin; its sender has been told.
      this.counters.ignored += 1;
      return { kind: 'more' };
    }
    if (type === checkpointTypes.pages) return this.onPages(receiving, payload);
    if (type === checkpointTypes.state) return this.onState(receiving, payload);
    if (type === checkpointTypes.end) return this.onEnd(receiving, payload);
    return this.refuse(`message type ${type} has no place in a checkpoint`);
  }

  private onBegin(payload: Uint8Array): StageResult {
    this.abandon();
    const begin = parseBegin(payload);
    if (begin instanceof ColoError) return this.refuse(begin);
    const wrong = begin.kind === 'round' ? this.wrongRound(begin) : this.wrongCheckpoint(begin);
    if (wrong !== undefined) return this.refuse(wrong, begin.epoch);
    this.receiving = {
      begin,
      stored: [],
      batches: 0,
      pages: 0,
      rawBytes: 0,
      nextStart: 0,
      hash: crc32(payload),
      state: undefined,
      storedBytes: 0,
      spill: undefined,
    };
    return { kind: 'more' };
  }

  private wrongRound(begin: Begin): string | undefined {
    if (this.newestComplete === 0) return undefined;
    return `round ${begin.sequence} came after checkpoint ${this.newestComplete} was complete`;
  }

  private wrongCheckpoint(begin: Begin): string | undefined {
    if (begin.epoch <= this.newestComplete) return `epoch ${begin.epoch} is not after ${this.newestComplete}`;
    if (begin.base === this.newestComplete) return undefined;
    return `epoch ${begin.epoch} builds on ${begin.base}, but the newest complete one here is ${this.newestComplete}`;
  }

  private onPages(receiving: Receiving, payload: Uint8Array): StageResult {
    const pages = parsePages(payload);
    if (pages instanceof ColoError) return this.refuse(pages);
    const wrong = this.wrongPages(receiving, pages);
    if (wrong !== undefined) return this.refuse(wrong);
    const keep = this.mayKeepDecoded(receiving, pages);
    const contents = keep ? Buffer.allocUnsafeSlow(pages.rawBytes) : this.scratch.subarray(0, pages.rawBytes);
    if (!this.compressor.decode(pages.encoding, pages.data, contents, pages.rawBytes)) {
      return this.refuse(`batch ${pages.index} cannot be decoded; is liblz4-1 installed on both nodes?`);
    }
    if (keep) {
      this.addShadow(pages.runs, pages.deltas, contents);
      receiving.stored.push({ kind: 'decoded', runs: pages.runs, rawBytes: pages.rawBytes, contents });
      receiving.storedBytes += pages.rawBytes;
    } else if (receiving.begin.kind === 'checkpoint') {
      const failure = this.storeEncoded(receiving, pages);
      if (failure !== undefined) return this.refuse(failure);
    }
    receiving.hash = crc32(payload, receiving.hash);
    receiving.batches += 1;
    receiving.pages += pages.runs.pages;
    receiving.rawBytes += pages.rawBytes;
    receiving.nextStart = pages.runs.bounds.at(-1) ?? receiving.nextStart;
    return receiving.begin.kind === 'round' ? { kind: 'batch', runs: pages.runs, contents } : { kind: 'more' };
  }

  private mayKeepDecoded(receiving: Receiving, pages: Pages): boolean {
    if (receiving.begin.kind !== 'checkpoint' || this.heldBytes + pages.rawBytes > this.bytesMax / 2) return false;
    return pages.deltas.runs === 0 || this.staged === undefined;
  }

  private addShadow(runs: PageRuns, deltas: PageRuns, contents: Uint8Array): void {
    if (this.shadow !== undefined) addBase({ runs, deltas, contents }, this.shadow);
  }

  private wrongPages(receiving: Receiving, pages: Pages): string | undefined {
    if (pages.epoch !== receiving.begin.epoch) return `pages of epoch ${pages.epoch} came within another`;
    if (receiving.state !== undefined) return 'pages came after the state';
    if (pages.index !== receiving.batches) return `batch ${pages.index} came where ${receiving.batches} was due`;
    if (pages.runs.runs === 0) return `batch ${pages.index} has no pages`;
    if ((pages.runs.bounds[0] ?? 0) < receiving.nextStart) return `batch ${pages.index} names pages again`;
    const mayDiffer = this.shadow !== undefined && receiving.begin.kind === 'checkpoint' && receiving.begin.base > 0;
    if (pages.deltas.runs > 0 && !mayDiffer) return `batch ${pages.index} has differences to nothing`;
    if ((pages.runs.bounds.at(-1) ?? 0) > this.ramBytes) return `batch ${pages.index} names pages beyond RAM`;
    return undefined;
  }

  /** Keeps a batch as it travelled, in memory or in the spill file; returns why not when there is no room. */
  private storeEncoded(receiving: Receiving, pages: Pages): string | undefined {
    const { runs, deltas, rawBytes, encoding, data } = pages;
    if (this.heldBytes + data.length > this.bytesMax) return this.spill(receiving, pages);
    receiving.stored.push({ kind: 'encoded', runs, deltas, rawBytes, encoding, data: copyOf(data) });
    receiving.storedBytes += data.length;
    return undefined;
  }

  private spill(receiving: Receiving, pages: Pages): string | undefined {
    const { runs, deltas, rawBytes, encoding, data } = pages;
    if (this.openSpill === undefined) {
      return `it needs more than the ${this.bytesMax} bytes that may be staged, and no folder to spill to is set`;
    }
    try {
      receiving.spill ??= this.openSpill();
    } catch (error) {
      return `it does not fit in memory, and ${spillingFailed(error)}`;
    }
    const position = receiving.spill.write(data);
    receiving.stored.push({ kind: 'spilled', runs, deltas, rawBytes, encoding, position, length: data.length });
    this.counters.spilledBytes += data.length;
    return undefined;
  }

  /** The staged checkpoint never was complete. */
  private withdraw(): void {
    const { staged } = this;
    if (staged === undefined) return;
    staged.receiving.spill?.close();
    this.staged = undefined;
    this.newestComplete = staged.receiving.begin.base;
    this.counters.completed -= 1;
    this.counters.refused += 1;
  }

  private onState(receiving: Receiving, payload: Uint8Array): StageResult {
    const state = parseState(payload);
    if (state instanceof ColoError) return this.refuse(state);
    if (state.epoch !== receiving.begin.epoch)
      return this.refuse(`the state of epoch ${state.epoch} came within another`);
    if (receiving.begin.kind === 'round') return this.refuse('a state came within a round');
    if (receiving.state !== undefined) return this.refuse('the state came twice');
    const { epoch: _, ...fields } = state;
    const wrong = this.wrongWith(fields);
    if (wrong !== undefined) return this.refuse(wrong);
    const { deviceState, table, held } = state;
    receiving.state = { ...fields, deviceState: copyOf(deviceState), table: copyOf(table), held: copyOf(held) };
    receiving.hash = crc32(payload, receiving.hash);
    return { kind: 'more' };
  }

  private onEnd(receiving: Receiving, payload: Uint8Array): StageResult {
    const end = parseEnd(payload);
    if (end instanceof ColoError) return this.refuse(end);
    if (!agrees(receiving, end)) return this.refuse('its totals or its hash do not agree with what arrived');
    const { begin, state } = receiving;
    if (begin.kind === 'round') {
      this.receiving = undefined;
      return { kind: 'round', sequence: begin.sequence, pages: receiving.pages };
    }
    if (state === undefined) return this.refuse('it ended without a state');
    if (this.staged !== undefined) return this.refuse(`checkpoint ${this.staged.checkpoint.epoch} is not applied yet`);
    const checkpoint = new StagedCheckpoint(receiving, state, (batch) => this.read(receiving, batch));
    this.staged = { checkpoint, receiving };
    this.receiving = undefined;
    this.newestComplete = begin.epoch;
    this.counters.completed += 1;
    return { kind: 'complete', checkpoint };
  }

  /** The contents of a stored batch. Only the spill file can fail here; everything else was decoded before. */
  private read(receiving: Receiving, batch: StoredBatch): Uint8Array | Promise<Uint8Array> {
    if (batch.kind === 'decoded') return batch.contents;
    if (batch.kind === 'encoded') return this.decode(batch, batch.data);
    return this.unspill(receiving, batch).then((data) => this.decode(batch, data));
  }

  private decode(batch: StoredBatch & { encoding: Encoding; deltas: PageRuns }, data: Uint8Array): Uint8Array {
    const contents = Buffer.allocUnsafe(batch.rawBytes);
    if (this.compressor.decode(batch.encoding, data, contents, batch.rawBytes)) {
      this.addShadow(batch.runs, batch.deltas, contents);
      return contents;
    }
    throw checkpointError('staged pages cannot be decoded any more: the spill file was damaged');
  }

  private async unspill(receiving: Receiving, batch: { position: number; length: number }): Promise<Uint8Array> {
    this.spillScratch ??= Buffer.allocUnsafeSlow(batchRawBytesMax);
    const data = this.spillScratch.subarray(0, batch.length);
    await receiving.spill?.read(batch.position, data);
    return data;
  }

  private refuse(why: string | ColoError, epoch: number = this.receiving?.begin.epoch ?? 0): StageResult {
    this.counters.refused += 1;
    this.drop();
    const error = why instanceof ColoError ? why : checkpointError(`checkpoint ${epoch} is refused: ${why}`);
    return { kind: 'refused', epoch, error };
  }

  private drop(): void {
    this.receiving?.spill?.close();
    this.receiving = undefined;
  }
}

function spillingFailed(error: unknown): string {
  return `spilling failed: ${errorText(error)}`;
}

/** Bytes of their own: what arrives is a view of the link's receive buffer. */
function copyOf(bytes: Uint8Array): Uint8Array {
  const copy = Buffer.allocUnsafeSlow(bytes.length);
  copy.set(bytes);
  return copy;
}
