// A checkpoint on the secondary as it arrives, batch by batch, and as it is when it is whole (stage.ts).

import type { ColoError } from '../base/errors.ts';
import type { PageRuns } from '../base/page-runs.ts';
import type { Begin, CaptureState, Encoding, End } from './message.ts';
import type { Spill } from './spill.ts';

export type StoredBatch = { runs: PageRuns; rawBytes: number } & (
  | { kind: 'decoded'; contents: Uint8Array }
  | { kind: 'encoded'; deltas: PageRuns; encoding: Encoding; data: Uint8Array }
  | { kind: 'spilled'; deltas: PageRuns; encoding: Encoding; position: number; length: number }
);

/** What became of a message. */
export type StageResult =
  | { kind: 'more' }
  /** Pages of a round: to be written at once; the contents are valid until the next message. */
  | { kind: 'batch'; runs: PageRuns; contents: Uint8Array }
  /** A round has arrived whole. */
  | { kind: 'round'; sequence: number; pages: number }
  /** A checkpoint is complete: it may be committed. */
  | { kind: 'complete'; checkpoint: StagedCheckpoint }
  /** What was being received is dropped. */
  | { kind: 'refused'; epoch: number; error: ColoError };

/** A complete checkpoint, ready to be applied. */
export class StagedCheckpoint {
  readonly epoch: number;
  readonly state: CaptureState;
  readonly pages: number;
  readonly rawBytes: number;
  private readonly stored: readonly StoredBatch[];
  private readonly read: (batch: StoredBatch) => Uint8Array | Promise<Uint8Array>;

  constructor(
    receiving: Receiving,
    state: CaptureState,
    read: (batch: StoredBatch) => Uint8Array | Promise<Uint8Array>,
  ) {
    this.epoch = receiving.begin.epoch;
    this.state = state;
    this.pages = receiving.pages;
    this.rawBytes = receiving.rawBytes;
    this.stored = receiving.stored;
    this.read = read;
  }

  /** Runs and their contents in order; the contents are valid until the next step. To be written as they come: once. */
  async *batches(): AsyncGenerator<{ runs: PageRuns; contents: Uint8Array }> {
    for (const batch of this.stored) {
      const contents = this.read(batch);
      yield { runs: batch.runs, contents: contents instanceof Uint8Array ? contents : await contents };
    }
  }
}

export interface Receiving {
  begin: Begin;
  stored: StoredBatch[];
  batches: number;
  pages: number;
  rawBytes: number;
  /** Where the next run may begin: pages ascend over the whole transfer, so none comes twice. */
  nextStart: number;
  hash: number;
  state: CaptureState | undefined;
  storedBytes: number;
  spill: Spill | undefined;
}

/** Whether what has arrived is what the primary says that it has sent. */
export function agrees(receiving: Receiving, end: End): boolean {
  return (
    end.epoch === receiving.begin.epoch &&
    end.batches === receiving.batches &&
    end.pages === receiving.pages &&
    end.rawBytes === receiving.rawBytes &&
    end.hash === receiving.hash
  );
}
