// The arbiter: who may run a VM. One record per VM; every change of it is a new term.
//
//    term t: owner A, peer B ──claim(t, {owner: B, peer: null})──► term t+1: owner B, alone
//                            ──claim(t, {owner: A, peer: null})──► lost: the record is already t+1
//
// Taking over, going on alone, and pairing up again are all one compare-and-swap from the term the claimer knows to the
// next. Exactly one of any number of claimers from one term wins. The loser stops its VM.
//
// Promises of every implementation (arbiter.conformance.ts):
//  - terms of a VM only grow, by one; a record once read is never read older again;
//  - a claim that won, or was seen by a read, survives any crash;
//  - won means that the claimer's record was the newest when it was read back: one that was followed at once by another
//    claimer's next term counts as lost;
//  - a claim is idempotent: repeating one that won says won, as long as no later term exists;
//  - an error (ColoError, code arbiter) leaves the outcome unknown: repeat the claim, or read, before acting.

import { ColoError, errorCodes } from '../base/errors.ts';

export interface TermRecord {
  term: number;
  /** The node that runs the VM. */
  owner: string;
  /** The node that may take over; null when the owner is alone. */
  peer: string | null;
}

export interface Roles {
  owner: string;
  peer: string | null;
}

export type ClaimResult = { won: true; record: TermRecord } | { won: false; record: TermRecord };

export interface Arbiter {
  /** The newest record, or undefined when the VM has none yet. */
  read(vm: string): Promise<TermRecord | undefined>;
  /** Makes term `expectedTerm + 1`, if `expectedTerm` (0: none yet) is the newest. Returns the newest record. */
  claim(vm: string, expectedTerm: number, next: Roles): Promise<ClaimResult>;
  /**
   * Does all that a claim for the VM needs, a write included, and makes no term: rejects when no claim could be made
   * now. An arbiter that answers and cannot write (a full disk, a share that went read-only) lets nobody take over.
   */
  probe(vm: string): Promise<void>;
  close(): Promise<void>;
}

/** The outcome of a claim, given the newest record: ours if it is the term and the roles that we asked for. */
export function resolveClaim(newest: TermRecord, expectedTerm: number, next: Roles): ClaimResult {
  const ours = newest.term === expectedTerm + 1 && newest.owner === next.owner && newest.peer === next.peer;
  return { won: ours, record: newest };
}

/** A claim from a term of which the arbiter knows nothing: it is not the arbiter that this pair was made with. */
export class UnknownTerm extends ColoError {
  constructor(vm: string, expectedTerm: number) {
    super(errorCodes.arbiter, `the arbiter has no record of ${vm}, though term ${expectedTerm} is known`, {
      hint:
        'Check that both nodes are configured with the arbiter that they were started with, and that it ' +
        'kept its data.',
    });
  }
}
