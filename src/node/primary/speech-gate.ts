// Whether the primary may say something to the network now, and what it tells the secondary of what it has said.
//
// Alone it speaks by its term. While paired, its release gate (proxy/gate.ts) is open only as long as the secondary's
// echoes lend the right to speak (heartbeat/lease.ts): who is about to release or hand in a frame asks `checkLease` first.

import { encodeCount, messages } from '../pairing/message.ts';
import type { PrimaryNode } from './primary.ts';

export class PrimaryGate {
  private readonly node: PrimaryNode;
  private open = true;
  private releasedTold = 0;

  constructor(node: PrimaryNode) {
    this.node = node;
  }

  /** Opens or shuts the gate as the lease says. */
  checkLease(now: number): void {
    const { pair, peer } = this.node;
    if (pair.state.kind !== 'protected' || peer.heartbeat === undefined) return;
    this.set(peer.heartbeat.lease.valid(now), now);
  }

  get isOpen(): boolean {
    return this.open;
  }

  set(open: boolean, now: number): void {
    if (open === this.open) return;
    this.open = open;
    this.node.context.log.debug({ open }, 'release gate');
    this.node.proxy.setGate(open, now);
  }

  /** The lease ends with the link, at once: before the event is handled. */
  shutIfPaired(): void {
    if (this.node.pair.state.kind === 'protected') this.set(false, this.node.context.clock.now());
  }

  /** With the gate shut the frames of a commit wait: the secondary must keep its copy of them until they have left. */
  tellReleased(): void {
    const { proxy, peer } = this.node;
    const epoch = proxy.releasedEpoch;
    if (epoch <= this.releasedTold || peer.links === undefined) return;
    this.releasedTold = epoch;
    peer.links.packet.send(messages.released, encodeCount(epoch));
  }
}
