// A primary's claims: of the pair before its secondary may hold a checkpoint, and of being alone when it is in doubt
// about its secondary. What the arbiter says becomes an event; what follows is decided in controller/.

import type { PrimaryEvent, PrimaryPair } from '../../controller/primary-pair.ts';
import type { FaultPoint } from '../fault-points.ts';
import type { Terms } from '../terms.ts';
import type { VmWatch } from '../vm-watch.ts';
import type { Offer } from './offer.ts';

export interface ClaimsParts {
  pair: Pick<PrimaryPair, 'state' | 'peerMayRun'>;
  terms: Pick<Terms, 'claimPair' | 'claimAlone' | 'isLost'>;
  watch: Pick<VmWatch, 'signOfLife' | 'endHeard'>;
  offer: Pick<Offer, 'awaitTaken' | 'yielded'>;
  reached: (point: FaultPoint) => void;
  /** Aborted when the role ends. */
  signal: AbortSignal;
  post: (event: PrimaryEvent) => void;
}

export class Claims {
  private readonly parts: ClaimsParts;

  constructor(parts: ClaimsParts) {
    this.parts = parts;
  }

  /** `peer`: the node that is to be the secondary. */
  async pair(peer: string): Promise<void> {
    const { terms, reached, post } = this.parts;
    const outcome = await terms.claimPair(peer);
    reached('pair.claimed');
    post({ kind: 'pairClaimed', outcome });
  }

  /**
   * Claims when the own QEMU gives a sign of life, where the secondary may run the VM: a node that cannot run it must
   * not take the term from one that can. One that is gone leaves the term to the secondary. One that is silent is asked
   * again, since there may be no other copy, until it answers or the secondary has the term. `afterMs`: the secondary
   * may take it first.
   */
  async alone(afterMs?: number): Promise<void> {
    const { pair, terms, watch, offer, signal, post } = this.parts;
    if (afterMs !== undefined && (await offer.awaitTaken(afterMs))) return;
    if (signal.aborted) return;
    if (pair.peerMayRun && (await offer.yielded())) return;
    const sign = pair.peerMayRun ? await watch.signOfLife() : 'lives';
    if (sign === 'gone') return this.leaveToSecondary();
    // Its QEMU may die while the arbiter is asked: then the copy of the secondary is the last one.
    const isWanted = () => pair.state.kind !== 'fenced';
    if (sign === 'lives') post({ kind: 'aloneClaimed', outcome: await terms.claimAlone(isWanted) });
    else post({ kind: 'aloneClaimed', outcome: (await terms.isLost()) ? 'lost' : 'error' });
  }

  /**
   * QEMU's end is an event of its own, and says whether the guest wanted it; it is heard, or taken for heard after a
   * while.
   */
  private async leaveToSecondary(): Promise<void> {
    await this.parts.watch.endHeard();
    this.parts.post({ kind: 'vmEnded', why: 'QEMU is gone', byGuest: false });
  }
}
