// Who knocks at a secondary that is free. Whoever has a certificate of the cluster can open links: the primary is who
// the arbiter says it is, at the term that it says, and nothing of anybody else is taken in.

import type { NodeContext } from '../context.ts';
import type { PeerLinks } from '../platform.ts';
import type { Terms } from '../terms.ts';

export class Candidate {
  private readonly context: NodeContext;
  private readonly terms: Terms;
  /** The links of the node about which the arbiter is asked now. */
  private links: PeerLinks | undefined;

  constructor(context: NodeContext, terms: Terms) {
    this.context = context;
    this.terms = terms;
  }

  get isAsked(): boolean {
    return this.links !== undefined;
  }

  /** Whether it is to be followed; one that is not has been turned away, with the reason. */
  async isPrimary(links: PeerLinks): Promise<boolean> {
    this.links = links;
    const { node, term } = links.beat.peer;
    const isOne = [links.packet, links.bulk].every(({ peer }) => peer.node === node && peer.term === term);
    const why = isOne ? await this.terms.whyNotPrimary({ node, term }) : 'its links are of several nodes';
    // The role has ended meanwhile.
    if (this.links !== links) return false;
    this.links = undefined;
    if (why === undefined) return true;
    this.context.log.warn({ peer: node, why }, 'a node that is not the primary was turned away');
    for (const link of [links.packet, links.bulk, links.beat]) link.close(`you were turned away: ${why}`);
    return false;
  }

  end(): void {
    if (this.links !== undefined) destroyAll(this.links);
    this.links = undefined;
  }
}

export function destroyAll(links: PeerLinks): void {
  for (const link of Object.values(links)) link.destroy();
}
