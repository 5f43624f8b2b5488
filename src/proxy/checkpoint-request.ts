// When the proxy asks for a checkpoint, and why: one request until it is answered, with the first reason; and the last
// divergences, whatever became of them.

import type { Divergence } from './compare/sink.ts';
import type { PrimaryCounters } from './counters.ts';
import { proxyLimits } from './limits.ts';
import type { CheckpointReason, DivergenceRecord } from './reason.ts';

export class CheckpointRequest {
  /** Asked, and neither committed nor aborted yet. */
  isMade = false;
  readonly divergences: DivergenceRecord[] = [];
  /** Wanted, and not answered by a commit yet. */
  private reason: CheckpointReason | undefined = undefined;
  private readonly ask: (reason: CheckpointReason) => void;
  private readonly count: PrimaryCounters;

  constructor(ask: (reason: CheckpointReason) => void, count: PrimaryCounters) {
    this.ask = ask;
    this.count = count;
  }

  /** A reason while a checkpoint is in flight is kept: it may be about output of after the capture. */
  want(reason: CheckpointReason, isInFlight: boolean): void {
    this.reason ??= reason;
    if (this.isMade || isInFlight) return;
    this.isMade = true;
    this.ask(reason);
  }

  /** Asks for what was wanted while no request could be made. */
  repeat(isInFlight: boolean): void {
    if (this.reason !== undefined) this.want(this.reason, isInFlight);
  }

  note(divergence: Divergence, at: { time: number; epoch: number }): CheckpointReason {
    const { kind, connection, offset, detail } = divergence;
    this.count.divergences[kind] += 1;
    const sides = { primary: hex(divergence.primary), secondary: hex(divergence.secondary) };
    const record = { ...at, kind, connection, offset, ...sides };
    this.divergences.push(detail === undefined ? record : { ...record, detail });
    if (this.divergences.length > proxyLimits.divergencesKept) this.divergences.shift();
    return { kind, connection, offset, detail: detail ?? `primary ${sides.primary} secondary ${sides.secondary}` };
  }

  /** A commit covers every reason; an abort none. */
  answered(isCommitted: boolean): void {
    this.isMade = false;
    if (isCommitted) this.reason = undefined;
  }
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}
