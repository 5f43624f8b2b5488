// A node's dealings with the arbiter: one claim at a time, each from the record it last saw. Who wins may speak; what
// the outcome means is decided in controller/.
//
// A record never goes back. One that is older than what this node has seen, or gone, comes of an arbiter that lost its
// data or was restored from an old copy: it says nothing about who owns the VM, and counts as no answer. So nobody
// kills a VM for it; a lone primary goes on unprotected, a pair that breaks meanwhile is silent until the record is
// right again.

import type { TermRecord } from '../arbiter/arbiter.ts';
import { errorText } from '../base/errors.ts';
import type { Standing } from '../controller/role.ts';
import { recordName } from './config.ts';
import type { NodeContext } from './context.ts';
import { claimRetryMs } from './limits.ts';

export type ClaimOutcome = 'won' | 'lost' | 'error';

/** What of a node's surroundings is needed here. */
type TermsContext = Pick<NodeContext, 'arbiter' | 'clock' | 'log'> & {
  config: Pick<NodeContext['config'], 'vm' | 'node' | 'life'>;
};

export class Terms {
  record: TermRecord | undefined;
  private readonly context: TermsContext;
  private readonly vm: string;
  private readonly node: string;
  private last: Promise<unknown> = Promise.resolve();
  /** Why the arbiter did not answer the last time; '' when it did. */
  private failure = '';

  constructor(context: TermsContext) {
    this.context = context;
    this.vm = recordName(context.config);
    this.node = context.config.node;
  }

  /** What the newest record says of this node. */
  look(): Promise<Standing | 'error'> {
    return this.queue(async () => {
      const { vm, node } = this;
      const known = await this.read(vm);
      if (known === 'error' || known === undefined) return known ?? 'none';
      this.record = known;
      if (known.owner !== node) return 'other';
      return known.peer === null ? 'mine' : 'pair';
    });
  }

  /** Claims the first term of a VM that starts; lost when another node has run it and its record stands. */
  claimFirst(): Promise<ClaimOutcome> {
    return this.queue(async () => {
      const { vm, node } = this;
      const known = await this.read(vm);
      if (known === 'error') return 'error';
      if (known !== undefined && known.owner !== node) return this.seen(known, 'lost');
      return this.claim(known?.term ?? 0, null);
    });
  }

  /**
   * From (t, me) to (t+1, me and the peer). The record is read first: an earlier claim of ours, of which we heard
   * nothing, may have been made after all.
   */
  claimPair(peer: string): Promise<ClaimOutcome> {
    return this.queue(async () => {
      const { vm, node } = this;
      const known = await this.read(vm);
      if (known === 'error') return 'error';
      if (known === undefined) return this.failed(new Error('it has no record of this VM any more'));
      if (known.owner !== node) return this.seen(known, 'lost');
      return this.claim(known.term, peer);
    });
  }

  /**
   * From (t, pair) to (t+1, alone: me), for either node of the pair. The record is read first: a node that the newest
   * one does not name (the owner is alone, or paired with another) has lost already. So has one that has nothing to run
   * any more when the record is there (`isWanted`): the term stays with whoever has.
   */
  claimAlone(isWanted = () => true): Promise<ClaimOutcome> {
    return this.queue(async () => {
      const { vm, node } = this;
      const known = await this.read(vm);
      if (known === 'error') return 'error';
      if (known === undefined) return this.failed(new Error('it has no record of this VM any more'));
      if (known.owner === node && known.peer === null) return this.seen(known, 'won');
      if (!this.isNamedBy(known)) return 'lost';
      return isWanted() ? this.claim(known.term, null) : 'lost';
    });
  }

  /**
   * Why a node that says that it is the primary, and of which term, is not followed; undefined when the record says the
   * same. A secondary asks before anything of its state arrives: it would hold a copy that is nobody's, or drop out of
   * a pair.
   */
  whyNotPrimary({ node, term }: { node: string; term: number }): Promise<string | undefined> {
    return this.queue(async () => {
      const known = await this.read(this.vm);
      if (known === 'error') return 'the arbiter did not say who owns the VM';
      if (known === undefined) return 'the arbiter has no record of the VM';
      this.record = known;
      if (known.owner !== node) return `${known.owner} owns the VM (term ${known.term}), not ${node}`;
      return known.term === term ? undefined : `${node} is at term ${term}, and the arbiter at ${known.term}`;
    });
  }

  /** Whether the newest record does not name this node any more: it has lost the term without asking for it. */
  isLost(): Promise<boolean> {
    return this.queue(async () => {
      const known = await this.read(this.vm);
      return known !== 'error' && known !== undefined && !this.isNamedBy(known);
    });
  }

  private isNamedBy({ owner, peer }: TermRecord): boolean {
    return owner === this.node || peer === this.node;
  }

  private async read(vm: string): Promise<TermRecord | undefined | 'error'> {
    try {
      const known = await this.context.arbiter.read(vm);
      const seen = this.record?.term ?? 0;
      if ((known?.term ?? 0) >= seen) return known;
      return await this.failed(new Error(`its record went back: term ${known?.term ?? 'none'} after ${seen}`));
    } catch (error) {
      return this.failed(error);
    }
  }

  private async claim(expected: number, peer: string | null): Promise<ClaimOutcome> {
    const { vm, node } = this;
    try {
      const result = await this.context.arbiter.claim(vm, expected, { owner: node, peer });
      return this.seen(result.record, result.won ? 'won' : 'lost');
    } catch (error) {
      return this.failed(error);
    }
  }

  /** The outcome is unknown: nothing is done on it, and the controller asks again after a pause. */
  private async failed(error: unknown): Promise<'error'> {
    const text = errorText(error);
    // Asked again five times a second: one line says it, until it is another reason or a claim has been answered.
    if (text !== this.failure) this.context.log.error({ error: text }, 'the arbiter did not answer');
    this.failure = text;
    await new Promise<void>((resolve) => void this.context.clock.after(claimRetryMs, resolve));
    return 'error';
  }

  private seen(record: TermRecord, outcome: ClaimOutcome): ClaimOutcome {
    this.record = record;
    this.failure = '';
    this.context.log.info({ term: record.term, owner: record.owner, peer: record.peer, outcome }, 'term');
    return outcome;
  }

  private queue<T>(work: () => Promise<T>): Promise<T> {
    const next = this.last.then(work, work);
    this.last = next.catch(() => undefined);
    return next;
  }
}
