// A clock for tests: time passes when the test says so.

import type { Clock } from './clock.ts';

/** A clock that the test moves: what became due in a move is called at its end, as by a process that stood still. */
export function handClock(): Clock & { move(ms: number): void; waiting: number } {
  let now = 0;
  let due: { at: number; action: () => void }[] = [];
  return {
    now: () => now,
    after: (delayMs, action) => {
      const one = { at: now + delayMs, action };
      due.push(one);
      return () => void (due = due.filter((other) => other !== one));
    },
    every: () => () => undefined,
    move: (ms) => {
      now += ms;
      const called = due.filter(({ at }) => at <= now);
      due = due.filter(({ at }) => at > now);
      for (const { action } of called) action();
    },
    get waiting() {
      return due.length;
    },
  };
}
