// An arbiter in memory, for tests and the simulation. Nodes share one `Terms`; each opens its own arbiter on it.

import { type Arbiter, type ClaimResult, type Roles, resolveClaim, type TermRecord, UnknownTerm } from './arbiter.ts';
import { checkNames } from './names.ts';

/** The records, as if on a third machine. */
export type Terms = Map<string, TermRecord>;

export class MemoryArbiter implements Arbiter {
  private readonly terms: Terms;

  constructor(terms: Terms) {
    this.terms = terms;
  }

  async read(vm: string): Promise<TermRecord | undefined> {
    checkNames(vm);
    return this.terms.get(vm);
  }

  async claim(vm: string, expectedTerm: number, next: Roles): Promise<ClaimResult> {
    checkNames(vm, next);
    const newest = this.terms.get(vm);
    if ((newest?.term ?? 0) === expectedTerm) {
      const record: TermRecord = { term: expectedTerm + 1, owner: next.owner, peer: next.peer };
      this.terms.set(vm, record);
      return { won: true, record };
    }
    if (newest === undefined) throw new UnknownTerm(vm, expectedTerm);
    return resolveClaim(newest, expectedTerm, next);
  }

  async probe(vm: string): Promise<void> {
    checkNames(vm);
  }

  async close(): Promise<void> {}
}
