// A process of the simulation: a node, or its QEMU. What is meant for it runs while it lives, waits while it is stopped
// (SIGSTOP), and is lost once it is dead. Code of a dead process may still be on the stack, or go on in a promise: it
// reaches nothing any more, because everything it can touch asks `alive` first.
//
// It can also be stopped in the middle of an event, before something that others notice (`acts`). What the rest of the
// event would do to the outside waits then, in its order, until it wakes: as if it had decided before it was stopped.

import type { Clock } from '../../src/base/clock.ts';
import type { Schedule } from '../world/schedule.ts';

/** What others notice of a process: it hands a frame to its uplink, writes to the kernel, sends to its peer. */
export type Act = 'release' | 'write' | 'send';

export class SimProcess {
  readonly name: string;
  readonly schedule: Schedule;
  alive = true;
  paused = false;
  private backlog: { action: () => void; isTimer: boolean }[] = [];
  private readonly ends: (() => void)[] = [];
  private readonly rate: number;
  private readonly origin: number;
  private jumpedMs = 0;
  private stop: { before: Act; nth: number; act: () => void } | undefined = undefined;

  constructor(name: string, schedule: Schedule, time: { rate: number; origin: number }) {
    this.name = name;
    this.schedule = schedule;
    this.rate = time.rate;
    this.origin = time.origin;
  }

  /** Runs `action` as this process: now, when it wakes, or never. */
  run(action: () => void): void {
    if (!this.alive) return;
    if (this.paused) this.backlog.push({ action, isTimer: false });
    else action();
  }

  /** As `run`, of a timer that is due. */
  private runTimer(action: () => void): void {
    if (this.alive && this.paused) this.backlog.push({ action, isTimer: true });
    else this.run(action);
  }

  /** Before it does the `nth` of these from now on, `act` stops it; undefined: nothing will. */
  stopBefore(stop: { before: Act; nth: number; act: () => void } | undefined): void {
    this.stop = stop;
  }

  /** Whether it does this now; false: it is stopped, and does it when it wakes. */
  acts(what: Act): boolean {
    const { stop } = this;
    if (stop?.before === what && !this.paused) {
      stop.nth -= 1;
      if (stop.nth <= 0) {
        this.stop = undefined;
        stop.act();
      }
    }
    return !this.paused;
  }

  onEnd(action: () => void): void {
    this.ends.push(action);
  }

  kill(): void {
    if (!this.alive) return;
    this.alive = false;
    this.backlog = [];
    for (const end of this.ends) end();
  }

  pause(): void {
    this.paused = true;
  }

  /**
   * Everything that waited runs before anything new: in its order, or as a loop of events does it, which looks at its
   * timers first and then at what its sockets have.
   */
  wake(timersFirst = false): void {
    if (!this.paused) return;
    this.paused = false;
    const waiting = this.backlog;
    this.backlog = [];
    if (timersFirst) waiting.sort((one, other) => Number(other.isTimer) - Number(one.isTimer));
    for (const { action } of waiting) this.schedule.at(this.schedule.now, () => this.run(action));
  }

  jump(ms: number): void {
    this.jumpedMs += ms;
  }

  readonly clock: Clock = {
    now: () => this.origin + this.jumpedMs + this.schedule.now * this.rate,
    after: (delayMs, action) => {
      let cancelled = false;
      const due = this.schedule.after(delayMs / this.rate, () => this.runTimer(() => cancelled || action()));
      return () => {
        cancelled = true;
        due.action = undefined;
      };
    },
    every: (periodMs, action) => {
      let cancelled = false;
      const next = () =>
        void this.schedule.after(periodMs / this.rate, () => {
          if (cancelled || !this.alive) return;
          this.runTimer(() => {
            if (cancelled) return;
            action();
            next();
          });
        });
      next();
      return () => {
        cancelled = true;
      };
    },
  };
}
