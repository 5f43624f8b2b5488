// Watches the event loop, which carries beats, frames, checkpoints and calls alike: what holds it up holds up all of
// them.
//
//    big handlers ─ during('apply', ...) ─► time spent in each since the last look
//    a timer every lookMs ─► how late it is ─► a stall: counted, and named after what ran meanwhile
//
// `during` measures what its work takes itself: what it calls under another name counts there. Two readings of the
// clock each, some 50 ns, so it stands at the entries of handlers and not within them. TLS handshakes run inside Node,
// and are seen as `other`; how many of them there can be is bounded elsewhere (channel/door.ts).
//
// A stall in which the thread hardly ran is the host's (starved of its processor, stopped), or a call that waited for a
// disk.

import { PerformanceObserver } from 'node:perf_hooks';
import { type Clock, wallTime } from './clock.ts';
import { loopLookMs, stallMs, stallsKept } from './limits.ts';

export const activities = [
  'guest frame',
  'network frame',
  'beat',
  'packet',
  'bulk',
  'tick',
  'capture',
  'encode',
  'apply',
  'disk',
  'qmp',
  'call',
  'round',
] as const;
export type Activity = (typeof activities)[number];

const none = -1;
const spent = new Float64Array(activities.length);
const indexes = new Map<Activity, number>(activities.map((name, index) => [name, index]));
let current = none;
let since = 0;

/** Runs the work, and notes what it takes. */
export function during<T>(activity: Activity, work: () => T): T {
  const before = enter(indexes.get(activity) ?? none);
  try {
    return work();
  } finally {
    enter(before);
  }
}

function enter(next: number): number {
  const before = current;
  const now = performance.now();
  if (before !== none) spent[before] = (spent[before] ?? 0) + now - since;
  current = next;
  since = now;
  return before;
}

export interface Stall {
  ms: number;
  /** What ran, and what else is known of it. */
  cause: string;
  /** Milliseconds since 1970. */
  at: number;
}

export interface LoopStatus {
  /** Stalls of limits.stallMs and more since the start. */
  stalls: number;
  longest: Stall | null;
  /** The newest last. */
  newest: Stall[];
}

/** What a look found: pure, for tests. */
export function causeOf(found: { ms: number; spentMs: Float64Array; collectedMs: number; ranMs: number }): string {
  const { ms, spentMs, collectedMs, ranMs } = found;
  const most = spentMs.indexOf(Math.max(...spentMs));
  const hardlyRan = ranMs < ms / 2 ? ', and hardly ran: its host is starved, or it waited for a disk' : '';
  if ((spentMs[most] ?? 0) >= ms / 2) return `${activities[most]}${hardlyRan}`;
  if (collectedMs >= ms / 2) return 'collecting garbage';
  return hardlyRan === ''
    ? 'other'
    : 'this process hardly ran: it was stopped, its host is starved, or it waited for a disk';
}

export class LoopWatch {
  private readonly clock: Clock;
  private readonly told: (stall: Stall) => void;
  private readonly cancel: () => void;
  private readonly collections: PerformanceObserver;
  private lookedAt: number;
  private ranUntil = ranMs();
  private collectedMs = 0;
  private stalls = 0;
  private longest: Stall | null = null;
  private readonly newest: Stall[] = [];

  constructor(clock: Clock, told: (stall: Stall) => void) {
    this.clock = clock;
    this.told = told;
    this.lookedAt = clock.now();
    this.collections = new PerformanceObserver((list) => {
      for (const { duration } of list.getEntries()) this.collectedMs += duration;
    });
    this.collections.observe({ entryTypes: ['gc'] });
    this.cancel = clock.every(loopLookMs, () => this.look());
  }

  get status(): LoopStatus {
    return { stalls: this.stalls, longest: this.longest, newest: [...this.newest] };
  }

  close(): void {
    this.cancel();
    this.collections.disconnect();
  }

  private look(): void {
    const now = this.clock.now();
    const ran = ranMs();
    const ms = now - this.lookedAt - loopLookMs;
    for (const { duration } of this.collections.takeRecords()) this.collectedMs += duration;
    if (ms >= stallMs) this.note(ms, ran - this.ranUntil);
    this.lookedAt = now;
    this.ranUntil = ran;
    this.collectedMs = 0;
    spent.fill(0);
  }

  private note(ms: number, ran: number): void {
    const cause = causeOf({ ms, spentMs: spent, collectedMs: this.collectedMs, ranMs: ran });
    const stall = { ms: Math.round(ms), cause, at: wallTime(this.clock.now() - ms) };
    this.stalls += 1;
    if (stall.ms > (this.longest?.ms ?? 0)) this.longest = stall;
    this.newest.push(stall);
    if (this.newest.length > stallsKept) this.newest.shift();
    this.told(stall);
  }
}

/** Milliseconds that this thread has had a processor for. */
function ranMs(): number {
  const { user, system } = process.threadCpuUsage();
  return (user + system) / 1000;
}
