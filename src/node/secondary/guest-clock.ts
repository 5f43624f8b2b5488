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
