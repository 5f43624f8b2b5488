// When a checkpoint is due without anybody asking: a pure decision over time and dirty pages. Divergence, limits and
// the operator ask by themselves (proxy, API); both kinds meet in primary-pair.ts, which lets one run at a time.
//
//   remus   every `intervalMs`, counted from the last capture: output waits for the commit, so short is good
//   colo    at `epochMaxMs` at the latest, so that a takeover never depends on a state older than that
//   both    at `dirtyPagesMax` dirty pages: what one checkpoint stages on the secondary stays bounded

import { roundsMax, smallEnoughPages, uplinkSickMs } from './limits.ts';

export interface PolicyOptions {
  mode: 'colo' | 'remus';
  intervalMs: number;
  epochMaxMs: number;
  dirtyPagesMax: number;
}

export type DueReason = 'periodic' | 'interval' | 'dirty';

export class Policy {
  private readonly options: PolicyOptions;
  private capturedAt: number;

  constructor(options: PolicyOptions, now: number) {
    this.options = options;
    this.capturedAt = now;
  }

  captured(now: number): void {
    this.capturedAt = now;
  }

  /** The reason why a checkpoint is due at `now` with `dirtyPages` pages written since the last capture. */
  due(now: number, dirtyPages: number): DueReason | undefined {
    const age = now - this.capturedAt;
    if (this.options.mode === 'remus' && age >= this.options.intervalMs) return 'interval';
    if (age >= this.options.epochMaxMs) return 'periodic';
    return dirtyPages >= this.options.dirtyPagesMax ? 'dirty' : undefined;
  }
}

/** Rounds of the initial copy: go on while another round clearly shrinks what is left, then take the checkpoint. */
export function anotherRound(options: { round: number; dirtyPages: number; lastDirtyPages: number }): boolean {
  const { round, dirtyPages, lastDirtyPages } = options;
  if (round >= roundsMax || dirtyPages <= smallEnoughPages) return false;
  return dirtyPages < lastDirtyPages * 0.7;
}

/** What is known of a node's way to the network, and for how long; '' is well, undefined is not known. */
export interface UplinkNews {
  problem: string | undefined;
  forMs: number;
}

/**
 * Whether a primary hands over because nobody reaches its guest through it, while its secondary's way to the network is
 * well. With both gone it stays: a failover would help nobody. Either has to be so for a while: what ails both may end
 * for both at once.
 */
export function handsOverForUplink({ own, peer }: { own: UplinkNews; peer: UplinkNews }): boolean {
  if (own.problem === undefined || own.problem === '' || peer.problem !== '') return false;
  return own.forMs >= uplinkSickMs && peer.forMs >= uplinkSickMs;
}
