// The record of every checkpoint: why it was taken and what each phase cost, on both sides. Status, demo, benchmarks
// and metrics all read these, so that no two of them can tell different stories.
//
//    primary    stop │ save scan copy resume │ encode and send ....... │ commit
//               └────────── pauseMs ─────────┘                         │
//                    └────────────────── commitMs ─────────────────────┘
//    secondary                                           stop rollback write load fix resume

import { Fifo } from '../base/fifo.ts';
import { Histogram } from '../base/histogram.ts';
import { quantile } from '../base/quantile.ts';
import type { CaptureSteps } from '../qemu/capture-phases.ts';
import { recordsMax } from './limits.ts';
import type { Applied } from './message.ts';

/** Why a checkpoint was taken. */
export interface CheckpointReason {
  /** A short name to count by, such as `payload`, `interval` or `operator`. */
  kind: string;
  /** For people: for a divergence the connection, the offset in its stream and the bytes that differed. */
  detail: string;
}

export interface CheckpointRecord {
  epoch: number;
  reason: CheckpointReason;
  /** The primary's clock when the guest stood still. */
  startedAtMs: number;
  phases: CaptureSteps;
  /** From asking QEMU to stop until it has resumed: a little more than the guest stood still. */
  pauseMs: number;
  pages: number;
  rawBytes: number;
  sentBytes: number;
  /** From when the guest stood still until the secondary had it complete. */
  commitMs: number;
  /** Frames that waited for this commit. */
  heldFrames: number;
  /** What applying cost on the other side; null until it has said so. */
  applied: Applied | null;
}

export interface Percentiles {
  count: number;
  p50: number;
  p99: number;
  max: number;
}

/** The nearest-rank percentiles of `values`; zeros when there are none. */
export function percentiles(values: readonly number[]): Percentiles {
  const sorted = [...values].sort((left, right) => left - right);
  return { count: sorted.length, p50: quantile(sorted, 0.5), p99: quantile(sorted, 0.99), max: quantile(sorted, 1) };
}

/** The newest records, and counts since the beginning. */
export class Records {
  /** Checkpoints since the beginning, also those whose record has left. */
  count = 0;
  /** How many of them for each kind of reason. */
  readonly reasons = new Map<string, number>();
  readonly pauseSeconds = new Histogram();
  readonly commitSeconds = new Histogram();
  /** Sums over all of them. */
  dirtyBytes = 0;
  sentBytes = 0;
  private readonly records = new Fifo<CheckpointRecord>();

  add(record: CheckpointRecord): void {
    if (this.records.length >= recordsMax) this.records.shift();
    this.records.push(record);
    this.count += 1;
    this.pauseSeconds.add(record.pauseMs / 1000);
    this.commitSeconds.add(record.commitMs / 1000);
    this.dirtyBytes += record.rawBytes;
    this.sentBytes += record.sentBytes;
    this.reasons.set(record.reason.kind, (this.reasons.get(record.reason.kind) ?? 0) + 1);
  }

  /** Completes the record of a checkpoint that the secondary has applied; false when it has left. */
  applied(applied: Applied): boolean {
    for (let index = this.records.length - 1; index >= 0; index -= 1) {
      const record = this.records.at(index);
      if (record?.epoch !== applied.epoch) continue;
      record.applied = applied;
      return true;
    }
    return false;
  }

  /** The newest records, newest last. */
  newest(count: number): CheckpointRecord[] {
    const all = [...this.records];
    return all.slice(Math.max(0, all.length - count));
  }

  /** Percentiles of one figure over the records that are kept; undefined figures are left out. */
  percentiles(figure: (record: CheckpointRecord) => number | undefined): Percentiles {
    const values = [...this.records].map(figure).filter((value) => value !== undefined);
    return percentiles(values);
  }
}
