// What the demo's clients have in common: each talks to the guest through an ordinary socket, checks every reply, and
// remembers the longest time in which nothing came. A client never reconnects: a lost connection is a failed run.

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
    const sorted = this.latencies.toSorted((left, right) => left - right);
    return {
      gapMsMax: round(Math.max(this.before, this.longest)),
      gapBeforeFaultMsMax: round(this.before),
      gapAfterFaultMsMax: round(this.longest),
      latencyMsP50: sorted.length === 0 ? null : round(sorted[Math.floor(sorted.length / 2)] ?? 0),
    };
  }
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}
