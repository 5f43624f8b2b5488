// The three links of one pairing, opened by the primary and accepted by the secondary. They live and die together: when
// one is lost all are closed and the owner is told once.
//
// A peer that closes says goodbye on all three, and what it said last is on the packet link: why it leaves, that this
// node is to take over, or that the guest has ended. A goodbye that comes first on another link must not hide it, so
// these links are over when the packet link is, or a second later.

import { afterAwake, type Clock } from '../../base/clock.ts';
import { ColoError } from '../../base/errors.ts';
import { during } from '../../base/loop-watch.ts';
import { closeTimeoutMs } from '../../channel/limits.ts';
import type { LinkKind } from '../../channel/link.ts';
import type { PeerLink, PeerLinks } from '../platform.ts';

export type LinkMessageHandler = (kind: LinkKind, type: number, payload: Uint8Array) => void;

/**
 * `byPeer`: the other end is gone or closed them; else this node gave them up, and the peer may know nothing of it.
 * Called before the peer can see it: what it leaves this node the right to do is over first.
 */
export type LinksLostHandler = (why: string, byPeer: boolean) => void;

export class PairLinks {
  readonly beat: PeerLink;
  readonly packet: PeerLink;
  readonly bulk: PeerLink;
  /** The peer has said goodbye; what it said before that may still come. */
  ending = false;
  private readonly clock: Clock;
  private readonly over = new AbortController();
  private onLost: LinksLostHandler = () => undefined;

  constructor(links: PeerLinks, clock: Clock) {
    this.beat = links.beat;
    this.packet = links.packet;
    this.bulk = links.bulk;
    this.clock = clock;
  }

  /** From now on the owner hears what the peer says. Once. */
  start(on: { message: LinkMessageHandler; lost: LinksLostHandler }): void {
    this.onLost = on.lost;
    for (const kind of ['beat', 'packet', 'bulk'] as const)
      this[kind].start({
        message: (type, payload) => {
          if (!this.isOver) this.deliver(on.message, kind, type, payload);
        },
        closed: (error) => this.onClosed(kind, error),
      });
  }

  /**
   * Aborted when the links are over, before anybody is told: what was begun for this pairing is nobody's from then on.
   */
  get signal(): AbortSignal {
    return this.over.signal;
  }

  get isOver(): boolean {
    return this.over.signal.aborted;
  }

  /** Says it on the packet link; lost when the links are over. */
  say(type: number, ...parts: Uint8Array[]): void {
    if (!this.isOver) this.packet.send(type, ...parts);
  }

  /** Sends what is queued, says goodbye, and why; the owner is not told. */
  close(why = ''): void {
    if (this.isOver) return;
    this.over.abort();
    for (const link of this.all) link.close(why);
  }

  private get all(): PeerLink[] {
    return [this.packet, this.bulk, this.beat];
  }

  private deliver(handler: LinkMessageHandler, kind: LinkKind, type: number, payload: Uint8Array): void {
    try {
      during(kind, () => handler(kind, type, payload));
    } catch (error) {
      if (!(error instanceof ColoError)) throw error;
      this.lose(`the peer sent something that is not ours: ${error.message}`, false);
    }
  }

  private onClosed(kind: LinkKind, error: ColoError | undefined): void {
    const end = () => this.lose(error?.message ?? 'the peer closed the links', this[kind].endedByPeer);
    if (error !== undefined || kind === 'packet') return end();
    // Its last words may wait in a socket that this node has not read while it stood still.
    if (!this.ending && !this.isOver) afterAwake(this.clock, closeTimeoutMs, end);
    this.ending = true;
  }

  private lose(why: string, byPeer: boolean): void {
    if (this.isOver) return;
    this.over.abort();
    const said = this.all.map(({ farewell }) => farewell).find((text) => text !== '');
    this.onLost(said === undefined ? why : `it says: ${said}`, byPeer);
    for (const link of this.all)
      if (byPeer) link.destroy();
      else link.close(why);
  }
}
