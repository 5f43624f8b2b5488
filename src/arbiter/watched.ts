// An arbiter that is also asked when nobody needs it, so that its loss is known before it matters: a protected pair runs on
// without it, and only when one of both nodes dies would nobody be allowed to go on.
//
// What it says is what the arbiter under it says. Every answer counts, to whoever asked; between two of them it is read
// once every probeEveryMs.

import type { Clock } from '../base/clock.ts';
import { errorText } from '../base/errors.ts';
import type { Arbiter, ClaimResult, Roles, TermRecord } from './arbiter.ts';
import { probeEveryMs } from './limits.ts';

export interface ArbiterProblem {
  /** The first failure since the last answer, of the clock. */
  since: number;
  why: string;
}

export interface WatchOptions {
  /** The VM whose record is read. */
  vm: string;
  clock: Clock;
  /** The arbiter is lost, or is back (undefined). */
  changed: (problem: ArbiterProblem | undefined) => void;
}

export class WatchedArbiter implements Arbiter {
  /** Why it does not answer; undefined while it does. */
  problem: ArbiterProblem | undefined;
  private readonly arbiter: Arbiter;
  private readonly options: WatchOptions;
  private readonly stopProbing: () => void;
  /** Questions of others. */
  private asked = 0;
  private isProbing = false;

  constructor(arbiter: Arbiter, options: WatchOptions) {
    this.arbiter = arbiter;
    this.options = options;
    let askedBefore = 0;
    this.stopProbing = options.clock.every(probeEveryMs, () => {
      const isQuiet = this.asked === askedBefore;
      askedBefore = this.asked;
      if (isQuiet) void this.probe();
    });
  }

  read(vm: string): Promise<TermRecord | undefined> {
    this.asked += 1;
    return this.note(this.arbiter.read(vm));
  }

  claim(vm: string, expectedTerm: number, next: Roles): Promise<ClaimResult> {
    this.asked += 1;
    return this.note(this.arbiter.claim(vm, expectedTerm, next));
  }

  close(): Promise<void> {
    this.stopProbing();
    return this.arbiter.close();
  }

  private async probe(): Promise<void> {
    if (this.isProbing) return;
    this.isProbing = true;
    await this.note(this.arbiter.read(this.options.vm)).catch(() => undefined);
    this.isProbing = false;
  }

  private async note<T>(answer: Promise<T>): Promise<T> {
    try {
      const said = await answer;
      this.seen(undefined);
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
