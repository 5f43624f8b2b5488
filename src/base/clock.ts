// Time. Cores take `now` as an argument: milliseconds, fractional, of a monotonic clock that starts anywhere.
// Shells take a Clock, so that a simulation can hand in its own. Wall-clock time is for logs only.

import { awakeSliceMs, latePiecesMax } from './limits.ts';

export interface Clock {
  /** Milliseconds of a monotonic clock; never goes back, starts anywhere. */
  now(): number;
  /** Calls `action` once, not before `delayMs` from now; returns what cancels it. */
  after(delayMs: number, action: () => void): () => void;
  /** Calls `action` about every `periodMs` until cancelled. */
  every(periodMs: number, action: () => void): () => void;
}

export const systemClock: Clock = {
  now: () => performance.now(),
  after(delayMs, action) {
    const timer = setTimeout(action, delayMs);
    return () => clearTimeout(timer);
  },
  every(periodMs, action) {
    const timer = setInterval(action, periodMs);
    return () => clearInterval(timer);
  },
};

/**
 * As `clock.after`, for whoever takes silence for a loss: time in which this process stood still does not count. After
 * a stop Node runs due timers before it reads a socket, so the answer that waits there would count as none; and where
 * the whole machine stood still, whoever was asked did so as well.
 */
export function afterAwake(clock: Clock, delayMs: number, action: () => void): () => void {
  let leftMs = delayMs;
  let late = 0;
  let cancel = () => {};
  const wait = () => {
    const sliceMs = Math.min(leftMs, awakeSliceMs);
    const from = clock.now();
    cancel = clock.after(sliceMs, () => {
      if (clock.now() - from > 2 * awakeSliceMs && late < latePiecesMax) late += 1;
      else leftMs -= sliceMs;
      if (leftMs <= 0) action();
      else wait();
    });
  };
  wait();
  return () => cancel();
}

/** Milliseconds since 1970 for a moment of `systemClock`: comparable between processes of one machine, for reports. */
export function wallTime(moment: number): number {
  return performance.timeOrigin + moment;
}

/** This host's time now, in milliseconds since 1970, as it is set and set again. */
export function wallMs(): number {
  return Date.now();
}

/** Resolves after `delayMs`. For polling a condition of another process, never to "let things settle". */
export function delay(delayMs: number, clock: Clock = systemClock): Promise<void> {
  return new Promise((resolve) => void clock.after(delayMs, resolve));
}
