// Suspects a silent peer. Pure: time is an argument.
//
// Silence is evidence only while we were listening. A node that was stopped itself (SIGSTOP, a starved host) finds on
// waking that its peer "was silent" for as long as it slept, while the peer's beats wait unread in the socket. So the
// detector notes when it is asked, and a gap between two questions longer than two periods does not count as silence.
// That can delay a suspicion, never raise one.
//
// A suspicion is only that: whether the peer is dead is decided by the arbiter, never here.

import { stallPeriods } from './limits.ts';

export class Detector {
  private readonly periodMs: number;
  private readonly timeoutMs: number;
  private lastBeat: number | undefined;
  private lastAsked: number | undefined;
  /** Time since the last beat during which this process stood still. */
  private stalledMs = 0;

  /** `periodMs`: between two beats; `timeoutMs`: silence that raises the suspicion. */
  constructor(options: { periodMs: number; timeoutMs: number }) {
    this.periodMs = options.periodMs;
    this.timeoutMs = options.timeoutMs;
  }

  /** A sign of life arrived. Establishing the link counts as the first; before it nobody is suspected. */
  beat(now: number): void {
    this.lastBeat = now;
    this.stalledMs = 0;
  }

  /** Whether the peer has been silent for too long. To be asked at least once a period. */
  suspects(now: number): boolean {
    this.noteStall(now);
    return this.sinceMs(now) - this.stalledMs >= this.timeoutMs;
  }

  /** Milliseconds since the last sign of life; 0 before the first. */
  sinceMs(now: number): number {
    return this.lastBeat === undefined ? 0 : now - this.lastBeat;
  }

  private noteStall(now: number): void {
    const gapMs = this.lastAsked === undefined ? 0 : now - this.lastAsked;
    if (gapMs > stallPeriods * this.periodMs) {
      const from = Math.max(this.lastAsked ?? now, this.lastBeat ?? now);
      this.stalledMs += Math.max(0, now - from);
    }
    this.lastAsked = now;
  }
}
