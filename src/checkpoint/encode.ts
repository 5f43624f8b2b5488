// From a capture to messages, on the primary.
//
//    runs + contents ─► batches of batchRawBytes ─► what is new in them (delta.ts) ─► LZ4 on another thread ─► messages
//
// Pure apart from the compressor: it yields the parts of one message after another, and its owner sends each and waits
// for the link before it asks for the next. At most one batch is in work, so packets and beats flow in between and the
// memory needed is what one checkpoint stages plus two batches.
//
//    const encoder = new CheckpointEncoder({ epoch, base, kind: 'checkpoint', sequence: 0, compressor });
//    for await (const message of encoder.checkpoint({ runs, contents, state })) {
//      link.send(message.type, ...message.parts);
//      await link.drain();
//    }
//
// A round copies from the RAM mapping while the guest runs. A page torn by that is harmless: it is dirty again, and the
// next round or the checkpoint carries it.

import { crc32 } from 'node:zlib';
import { assert } from '../base/assert.ts';
import { ColoError, errorCodes } from '../base/errors.ts';
import { during } from '../base/loop-watch.ts';
import { PageRuns, pageSize } from '../base/page-runs.ts';
import type { Compressor } from './compress.ts';
import { type DeltaBase, type DeltaBatch, DeltaEncoder } from './delta.ts';
import { batchRawBytes, batchRunsMax, templateBytesMax } from './limits.ts';
import {
  type Begin,
  type CaptureState,
  checkpointTypes,
  encodeBegin,
  encodeEnd,
  encodePagesHead,
  encodeState,
  encodeTemplateHead,
  encodings,
} from './message.ts';

/** One message of the bulk link. Its parts are not changed by the encoder any more. */
export interface OutgoingMessage {
  type: number;
  parts: Uint8Array[];
}

export class CheckpointEncoder {
  /** What was encoded so far; for the record of the checkpoint. */
  readonly totals = { batches: 0, pages: 0, rawBytes: 0, sentBytes: 0 };
  private readonly begin: Begin;
  private readonly compressor: Compressor;
  private hash = 0;

  constructor(options: Begin & { compressor: Compressor }) {
    const { compressor, ...begin } = options;
    this.begin = begin;
    this.compressor = compressor;
  }

  /**
   * All messages of one checkpoint. `contents`: the pages of `runs`, one behind the other; it must stay as it is until
   * the last message has left, because batches that do not compress are sent from it. `known`: the pages of the
   * checkpoint that this one builds on (`base` of its begin), where the primary still has them.
   */
  async *checkpoint(
    { runs, contents, state }: { runs: PageRuns; contents: Uint8Array; state: CaptureState },
    known?: DeltaBase,
  ): AsyncGenerator<OutgoingMessage> {
    assert(this.begin.kind === 'checkpoint', 'a round has no state');
    assert(contents.length === runs.bytes, 'the contents are those of the runs');
    // Before anything is sent, because a state that is too large throws here.
    const stateBytes = encodeState({ ...state, epoch: this.begin.epoch });
    yield this.message(checkpointTypes.begin, [encodeBegin(this.begin)]);
    const deltas = known === undefined ? undefined : new DeltaEncoder(known);
    const memory = new BatchMemory();
    let at = 0;
    for (const batch of batches(runs)) {
      const raw = contents.subarray(at, at + batch.bytes);
      at += raw.length;
      const news = during('encode', () => deltas?.encode(batch, raw, memory.buffer)) ?? {
        runs: batch,
        deltas: new PageRuns(),
        contents: raw,
      };
      if (news.runs.runs === 0) continue;
      const message = await this.pages(news);
      memory.leftWith(message);
      yield message;
    }
    yield this.message(checkpointTypes.state, [stateBytes]);
    yield this.end();
  }

  /** All messages of one round: the pages of `runs` as they are in RAM while they are read. */
  async *round(runs: PageRuns, ram: Buffer): AsyncGenerator<OutgoingMessage> {
    assert(this.begin.kind === 'round', 'a checkpoint is not read from running RAM');
    yield this.message(checkpointTypes.begin, [encodeBegin(this.begin)]);
    const memory = new BatchMemory();
    for (const batch of batches(runs)) {
      // A copy, so that what was compressed, checksummed and sent is one and the same.
      const raw = memory.buffer.subarray(0, batch.bytes);
      let at = 0;
      batch.forEach((start, end) => {
        at += ram.copy(raw, at, start, end);
      });
      const message = await this.pages({ runs: batch, deltas: new PageRuns(), contents: raw });
      memory.leftWith(message);
      yield message;
    }
    yield this.end();
  }

  private async pages({ runs, deltas, contents }: DeltaBatch): Promise<OutgoingMessage> {
    const compressed = await this.compressor.compress(contents);
    const encoding = compressed === undefined ? encodings.raw : this.compressor.encoding;
    const { epoch } = this.begin;
    const rawBytes = contents.length;
    const head = encodePagesHead({ epoch, index: this.totals.batches, rawBytes, runs, deltas, encoding });
    this.totals.batches += 1;
    this.totals.pages += runs.pages;
    this.totals.rawBytes += rawBytes;
    return this.message(checkpointTypes.pages, [head, compressed ?? contents]);
  }

  private end(): OutgoingMessage {
    const { batches, pages, rawBytes } = this.totals;
    const end = encodeEnd({ epoch: this.begin.epoch, batches, pages, rawBytes, hash: this.hash });
    this.totals.sentBytes += end.length;
    return { type: checkpointTypes.end, parts: [end] };
  }

  private message(type: number, parts: Uint8Array[]): OutgoingMessage {
    for (const part of parts) {
      this.hash = crc32(part, this.hash);
      this.totals.sentBytes += part.length;
    }
    return { type, parts };
  }
}

/** The memory of one batch, used again and again: fresh ones would wait for the garbage collector by the dozen. */
class BatchMemory {
  private memory: Buffer | undefined;

  get buffer(): Buffer {
    this.memory ??= Buffer.allocUnsafeSlow(batchRawBytes);
    return this.memory;
  }

  /** What did not compress is the message itself, and belongs to whoever sends it. */
  leftWith(message: OutgoingMessage): void {
    if (message.parts.some((part) => part.buffer === this.memory?.buffer)) this.memory = undefined;
  }
}

/** Cuts runs into batches; a long run goes on in the next batch. */
export function* batches(runs: PageRuns): Generator<PageRuns> {
  let batch = new PageRuns();
  let room = batchRawBytes;
  for (let index = 0; index < runs.bounds.length; index += 2) {
    let start = runs.bounds[index] ?? 0;
    const end = runs.bounds[index + 1] ?? 0;
    while (start < end) {
      const stop = Math.min(end, start + room);
      batch.add(start, stop);
      room -= stop - start;
      start = stop;
      if (room >= pageSize && batch.runs < batchRunsMax) continue;
      yield batch;
      batch = new PageRuns();
      room = batchRawBytes;
    }
  }
  if (batch.runs > 0) yield batch;
}

/** The message that brings the secondary the snapshot template. */
export async function encodeTemplate(
  template: Uint8Array,
  options: { specHash: string; compressor: Compressor },
): Promise<OutgoingMessage> {
  const compressed = template.length === 0 ? undefined : await options.compressor.compress(template);
  const data = compressed ?? template;
  if (data.length > templateBytesMax) {
    throw new ColoError(errorCodes.checkpoint, `the snapshot template has ${data.length} bytes even when compressed`, {
      hint: `No more than ${templateBytesMax} can travel. Install liblz4-1 on this host, or remove devices.`,
    });
  }
  const encoding = compressed === undefined ? encodings.raw : options.compressor.encoding;
  const head = encodeTemplateHead({ rawBytes: template.length, encoding, specHash: options.specHash });
  return { type: checkpointTypes.template, parts: [head, data] };
}
