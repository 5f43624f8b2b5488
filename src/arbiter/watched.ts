// An arbiter that is also asked when nobody needs it, so that its loss is known before it matters: a protected pair
// runs on without it, and only when one of both nodes dies would nobody be allowed to go on.
//
// What it says is what the arbiter under it says. A failure counts, whoever asked; but that it can be read says nothing
// of what a takeover needs, which is a write. So it is well again, and known to be, by a claim that was won or by a
// probe, which writes the way a claim does; one is made every probeEveryMs, unless a claim was won meanwhile.

import type { Clock } from '../base/clock.ts';
import { errorText } from '../base/errors.ts';
import type { Arbiter, ClaimResult, Roles, TermRecord } from './arbiter.ts';
import { probeEveryMs } from './limits.ts';

export interface ArbiterProblem {
  /** The first failure since it was last known to be well, of the clock. */
  since: number;
  why: string;
}

export interface WatchOptions {
  /** The VM whose claims are tried. */
  vm: string;
  clock: Clock;
  /** The arbiter is lost, or is back (undefined). */
  changed: (problem: ArbiterProblem | undefined) => void;
}

export class WatchedArbiter implements Arbiter {
  /** Why no claim could be made; undefined while one could. */
  problem: ArbiterProblem | undefined;
  private readonly arbiter: Arbiter;
  private readonly options: WatchOptions;
  private readonly stopProbing: () => void;
  /** A claim was won since the last look. */
  private isProven = false;
  private isProbing = false;

  constructor(arbiter: Arbiter, options: WatchOptions) {
    this.arbiter = arbiter;
    this.options = options;
    this.stopProbing = options.clock.every(probeEveryMs, () => {
      if (!this.isProven) void this.look();
      this.isProven = false;
    });
  }

  read(vm: string): Promise<TermRecord | undefined> {
    return this.note(this.arbiter.read(vm), () => false);
  }

  claim(vm: string, expectedTerm: number, next: Roles): Promise<ClaimResult> {
    return this.note(this.arbiter.claim(vm, expectedTerm, next), ({ won }) => {
      this.isProven ||= won;
      return won;
    });
  }

  probe(vm: string): Promise<void> {
    return this.note(this.arbiter.probe(vm), () => true);
  }

  close(): Promise<void> {
    this.stopProbing();
    return this.arbiter.close();
  }

  private async look(): Promise<void> {
    if (this.isProbing) return;
    this.isProbing = true;
    await this.probe(this.options.vm).catch(() => undefined);
    this.isProbing = false;
  }

  private async note<T>(answer: Promise<T>, isProof: (said: T) => boolean): Promise<T> {
    try {
      const said = await answer;
      if (isProof(said)) this.seen(undefined);
      return said;
    } catch (error) {
      this.seen(errorText(error));
      throw error;
    }
  }

  private seen(why: string | undefined): void {
    const before = this.problem;
    if (why === undefined) this.problem = undefined;
    else this.problem = { since: before?.since ?? this.options.clock.now(), why };
    if ((before === undefined) !== (this.problem === undefined)) this.options.changed(this.problem);
  }
}
