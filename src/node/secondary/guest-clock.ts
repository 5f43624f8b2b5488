// How far the clock of a state that is loaded has to be moved, where the guest's clocks cannot be started exactly
// (under TCG; under KVM qemu/vm.ts, startClocksFrom).
//
//    primary    ── clock runs ──┐ capture ┌── clock runs ─────────────────────────►
//                               └─ stands ┘                         │
//    secondary       ... runs ─────────────┐ stop, write, load ┌────┴─ resume
//                          marker ─^                           lag: resume - marker - stands
//
// QEMU's tick counter, which is the TSC under TCG, never goes back in one process: when the lag is too small for it to
// reach what this QEMU has shown already, QEMU silently leaves it ahead, and of all clocks only it. That came about
// when the primary stood for longer than the secondary took to apply, a guest's kernel saw TSC and HPET apart by 0.2 s
// at a takeover, and marked the TSC unstable. So then all clocks are moved as far as the TSC is: they stay one time, a
// little ahead of the primary's, and later checkpoints, whose lag is larger again, bring them back.
//
// When the machine will run is a guess. It is one that most loads keep (`RestartGuess`), and who is ready before waits
// for the rest: a few milliseconds of an SVM that stands, for a clock that is right.

import { median, quantile } from '../../base/quantile.ts';
import { firstRestartGuessMs, restartGuessesKept, restartWaitMsMax } from '../limits.ts';

export interface ClockPlan {
  lagMs: number;
  /** Of `lagMs`: what is beyond the primary's clock. */
  aheadMs: number;
}

export class GuestClock {
  /** What the clock showed at the last restart, and when that was at the earliest. */
  #started: { clockMs: number; at: number } | undefined;
  /** The most that it can have shown. */
  #shownMs = 0;

  /** The machine is about to be restarted, its clock at `clockMs`. */
  starting(clockMs: number, now: number): void {
    this.#started = { clockMs, at: now };
    this.#shownMs = Math.max(this.#shownMs, clockMs);
  }

  /** The machine stands still. */
  stopped(now: number): void {
    if (this.#started === undefined) return;
    this.#shownMs = Math.max(this.#shownMs, this.#started.clockMs + (now - this.#started.at));
    this.#started = undefined;
  }

  /** For a state whose clock is at `clockMs`, and `lagMs` behind the primary's by the time that the machine runs. */
  plan(clockMs: number, lagMs: number): ClockPlan {
    const wanted = Math.max(0, lagMs);
    const least = this.#shownMs - clockMs;
    return { lagMs: Math.max(wanted, least), aheadMs: Math.max(0, least - wanted) };
  }
}

/** Share of the restarts that are ready by the time they are planned for. */
const readyShare = 0.75;

/** From the alignment of a state until the machine runs from it. */
export class RestartGuess {
  /** What the newest ones took: until all was ready, and until QEMU had started it. */
  private readonly readyMs: number[] = [];
  private readonly startMs: number[] = [];

  /** What is to be planned for. */
  get ms(): number {
    if (this.readyMs.length === 0) return firstRestartGuessMs;
    const ascending = this.readyMs.toSorted((left, right) => left - right);
    return quantile(ascending, readyShare) + median(this.startMs);
  }

  /** How long who was ready after `readyMs` waits before it is started, when it is planned for `plannedMs`. */
  waitMs(plannedMs: number, readyMs: number): number {
    const early = plannedMs - median(this.startMs) - readyMs;
    return Math.max(0, Math.min(early, restartWaitMsMax));
  }

  /** What it took, the wait left out. */
  took(readyMs: number, startMs: number): void {
    this.readyMs.push(readyMs);
    this.startMs.push(startMs);
    if (this.readyMs.length <= restartGuessesKept) return;
    this.readyMs.shift();
    this.startMs.shift();
  }
}
