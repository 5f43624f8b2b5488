// The three links of one pairing, opened by the primary and accepted by the secondary. They live and die together: when
// one is lost all are closed and the owner is told once.

import { ColoError } from '../base/errors.ts';
import type { LinkKind } from '../channel/link.ts';
import type { PeerLink, PeerLinks } from './platform.ts';

export type LinkMessageHandler = (kind: LinkKind, type: number, payload: Uint8Array) => void;

/** `byPeer`: the other end is gone or closed them; else this node gave them up, and the peer may know nothing of it. */
export type LinksLostHandler = (why: string, byPeer: boolean) => void;

export class PairLinks {
  readonly beat: PeerLink;
  readonly packet: PeerLink;
  readonly bulk: PeerLink;
  private readonly onLost: LinksLostHandler;
  private over = false;

  constructor(links: PeerLinks, on: { message: LinkMessageHandler; lost: LinksLostHandler }) {
    this.beat = links.beat;
    this.packet = links.packet;
    this.bulk = links.bulk;
    this.onLost = on.lost;
    for (const kind of ['beat', 'packet', 'bulk'] as const)
      links[kind].start({
        message: (type, payload) => {
          if (!this.over) this.deliver(on.message, kind, type, payload);
        },
        closed: (error) =>
          this.lose(error?.message ?? `the ${kind} link was closed by the peer`, links[kind].endedByPeer),
      });
  }

  get open(): boolean {
    return !this.over;
  }

  /** Sends what is queued, says goodbye; the owner is not told. */
  close(): void {
    this.over = true;
    for (const link of [this.packet, this.bulk, this.beat]) link.close();
  }

  private deliver(handler: LinkMessageHandler, kind: LinkKind, type: number, payload: Uint8Array): void {
    try {
      handler(kind, type, payload);
    } catch (error) {
      if (!(error instanceof ColoError)) throw error;
      this.lose(`the peer sent something that is not ours: ${error.message}`, false);
    }
  }

  private lose(why: string, byPeer: boolean): void {
    if (this.over) return;
    this.over = true;
    for (const link of [this.beat, this.packet, this.bulk]) link.destroy();
    this.onLost(why, byPeer);
  }
}
