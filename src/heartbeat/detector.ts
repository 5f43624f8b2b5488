// Suspects a silent peer. Pure: time is an argument.
//
// Silence is evidence only while we were listening. A node that was stopped itself (SIGSTOP, a starved host) finds on
// waking that its peer "was silent" for as long as it slept, while the peer's beats wait unread in the socket. So the
// detector notes when it is asked, and a gap between two questions longer than two periods does not count as silence.
// That can delay a suspicion, never raise one.
//
// How much silence is borne is learned from the gaps seen lately (tolerance.ts).
//
// A suspicion is only that: whether the peer is dead is decided by the arbiter, never here.

import { stallPeriods } from './limits.ts';
import type { Tolerance } from './tolerance.ts';

export class Detector {
  private readonly periodMs: number;
  private readonly tolerance: Tolerance;
  private lastBeat: number | undefined;
  private lastAsked: number | undefined;
  /** Time since the last beat during which this process stood still. */
  private stalledMs = 0;
  private hasBeaten = false;

  /** `periodMs`: between two beats; `tolerance`: how much silence is borne, and learns of the gaps seen here. */
  constructor(options: { periodMs: number; tolerance: Tolerance }) {
    this.periodMs = options.periodMs;
    this.tolerance = options.tolerance;
  }

  /** The link stands, which is the first sign of life; before it nobody is suspected. */
  begin(now: number): void {
    this.lastBeat = now;
    this.stalledMs = 0;
    this.hasBeaten = false;
  }

  /** A sign of life arrived. The time until the first one is no gap: the peer may have had to start its VM. */
  beat(now: number): void {
    if (this.hasBeaten) this.tolerance.gap(this.sinceMs(now) - this.stalledMs, now);
    this.hasBeaten = true;
    this.lastBeat = now;
    this.stalledMs = 0;
  }

  /** Whether the peer has been silent for too long. To be asked at least once a period. */
  suspects(now: number): boolean {
    this.noteStall(now);
    return this.sinceMs(now) - this.stalledMs >= this.tolerance.timeoutMs(now);
  }

  /** Milliseconds since the last sign of life; 0 before the first. */
  sinceMs(now: number): number {
    return this.lastBeat === undefined ? 0 : now - this.lastBeat;
  }

  private noteStall(now: number): void {
    const gapMs = this.lastAsked === undefined ? 0 : now - this.lastAsked;
    if (gapMs > stallPeriods * this.periodMs) {
      this.tolerance.gap(gapMs, now);
      const from = Math.max(this.lastAsked ?? now, this.lastBeat ?? now);
      this.stalledMs += Math.max(0, now - from);
    }
    this.lastAsked = now;
  }
}
