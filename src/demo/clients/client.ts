// What the demo's clients have in common: each talks to the guest through an ordinary socket, checks every reply, and
// remembers the longest time in which nothing came. A client never reconnects: a lost connection is a failed run.

import type { Socket } from 'node:net';
import type { Clock } from '../../base/clock.ts';
import { median } from '../../base/quantile.ts';

export interface ClientReport {
  name: string;
  ok: boolean;
  /** Connections opened; 1 means the one from the start lived through everything. */
  connections: number;
  sent: number;
  received: number;
  /** Longest time without progress, milliseconds: of the whole run, and before and after the fault. */
  gapMsMax: number;
  gapBeforeFaultMsMax: number;
  gapAfterFaultMsMax: number;
  /** Median time from request to reply, milliseconds; null where there is no such thing. */
  latencyMsP50: number | null;
  detail: string;
}

export interface Client {
  readonly name: string;
  /** Progress as one short text, for the live view. */
  progress(): string;
  /** The fault happens now: gaps so far belong to normal running. */
  markFault(): void;
  /** Longest time without progress since the last call, milliseconds. */
  takeGap(): number;
  /** Sends nothing new, waits for what is outstanding; resolves with the report, at `deadline` with what is there. */
  finish(deadlineMs: number): Promise<ClientReport>;
  /** Ends at once. */
  abort(): void;
}

/** What all clients of this process share: how they wait for their end, and what they say of silences and failures. */
export abstract class MeasuredClient implements Client {
  abstract readonly name: string;
  protected readonly clock: Clock;
  protected readonly gaps: Gaps;
  /** The first thing that went wrong; empty while nothing has. */
  protected wrong = '';
  /** Nothing new is to be sent. */
  protected finishing = false;
  /** Ends `untilDone`. */
  protected done: () => void = () => undefined;

  constructor(clock: Clock) {
    this.clock = clock;
    this.gaps = new Gaps(() => clock.now());
  }

  abstract progress(): string;
  abstract finish(deadlineMs: number): Promise<ClientReport>;
  abstract abort(): void;

  markFault(): void {
    this.gaps.markFault();
  }

  takeGap(): number {
    return this.gaps.take();
  }

  /**
   * Resolves when `done` is called, after `deadlineMs` at the latest. `look` calls it if there is nothing to wait for.
   */
  protected async untilDone(deadlineMs: number, look: () => void): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.done = resolve;
    const cancel = this.clock.after(deadlineMs, resolve);
    look();
    await promise;
    cancel();
  }

  /** What comes over the connection goes to `take`; its end is a failure. */
  protected watch(socket: Socket, take: (chunk: Buffer) => void): void {
    socket.on('data', take);
    socket.on('error', (error) => this.fail(`connection failed: ${error.message}`));
    socket.on('close', () => this.fail('the connection was closed'));
  }

  protected fail(why: string): void {
    if (this.wrong === '') this.wrong = why;
    this.done();
  }
}

export async function untilConnected(socket: Socket): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    socket.once('connect', resolve);
    socket.once('error', reject);
  });
}

/** Longest silence and latencies, both bounded. */
export class Gaps {
  private last: number | undefined;
  private longest = 0;
  private before = 0;
  private sinceTaken = 0;
  private readonly latencies: number[] = [];
  private readonly now: () => number;

  constructor(now: () => number) {
    this.now = now;
  }

  progress(latencyMs?: number): void {
    const now = this.now();
    if (this.last !== undefined) {
      this.longest = Math.max(this.longest, now - this.last);
      this.sinceTaken = Math.max(this.sinceTaken, now - this.last);
    }
    this.last = now;
    if (latencyMs !== undefined && this.latencies.length < 100_000) this.latencies.push(latencyMs);
  }

  markFault(): void {
    this.before = this.longest;
    this.longest = 0;
  }

  /** The longest silence since the last call, the one that lasts still included. */
  take(): number {
    const lasting = this.last === undefined ? 0 : this.now() - this.last;
    const gap = Math.max(this.sinceTaken, lasting);
    this.sinceTaken = 0;
    return gap;
  }

  report() {
    return {
      gapMsMax: round(Math.max(this.before, this.longest)),
      gapBeforeFaultMsMax: round(this.before),
      gapAfterFaultMsMax: round(this.longest),
      latencyMsP50: this.latencies.length === 0 ? null : round(median(this.latencies)),
    };
  }
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}
