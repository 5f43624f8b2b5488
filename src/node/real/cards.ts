// Several network cards of one guest as one, for the roles: frames carry the mark of their card (packet/card.ts) from
// here on inwards, and go out through the uplink, or into the guest's card, that their mark names.
//
//    uplink 0 ─┐                                                      ┌─ card 0 ─┐
//    uplink 1 ─┼─ mark ─► Uplinks ─► role, proxy, peer ─► Cards ─ unmark ─ card 1 ─┼─ QEMU
//    uplink 2 ─┘                                                      └─ card 2 ─┘
//
// A frame that comes in with a mark is refused and counted: it would be let out through another card. So is one of a
// further card that is no Ethernet frame: it has no place for a mark.

import type { Progress, Uplink } from '../../netdev/endpoint.ts';
import type { FrameHandlers } from '../../netdev/frame-socket.ts';
import { cardOf, withCard, withoutCard } from '../../packet/card.ts';
import { read16 } from '../../packet/checksum.ts';
import { ethernet, etherType } from '../../packet/ethernet.ts';
import type { GuestCard } from '../platform.ts';

/** The frame as it goes on inwards; undefined when it claims to be of a card, or is too short to be given a mark. */
function inwards(frame: Uint8Array, card: number): Uint8Array | undefined {
  if (card !== 0 && frame.length < ethernet.headerBytes) return undefined;
  const hasMark = frame.length >= ethernet.headerBytes && read16(frame, ethernet.type) === etherType.card;
  if (hasMark) return undefined;
  return card === 0 ? frame : withCard(frame, card);
}

function outwards(frame: Uint8Array, card: number): Uint8Array {
  return card === 0 ? frame : withoutCard(frame);
}

export class Cards implements GuestCard {
  handler: ((frame: Uint8Array) => void) | undefined;
  /** Frames of the guest that bore a mark, or had no place for one. */
  refused = 0;
  private readonly cards: readonly GuestCard[];

  constructor(cards: readonly GuestCard[]) {
    this.cards = cards;
    for (const [index, card] of cards.entries()) card.handler = (frame) => this.take(frame, index);
  }

  send(frame: Uint8Array): void {
    const index = cardOf(frame);
    this.cards[index]?.send(outwards(frame, index));
  }

  flush(): void {
    for (const card of this.cards) card.flush();
  }

  drain(): void {
    for (const card of this.cards) card.drain();
  }

  get bytesIn(): number {
    return this.cards.reduce((sum, card) => sum + card.bytesIn, 0);
  }

  settled(): boolean | undefined {
    // Every card is asked: asking lets it write out what waits.
    const all = this.cards.map((card) => card.settled());
    if (all.includes(false)) return false;
    return all.includes(undefined) ? undefined : true;
  }

  pause(paused: boolean): void {
    for (const card of this.cards) card.pause(paused);
  }

  async close(): Promise<void> {
    await Promise.all(this.cards.map((card) => card.close()));
  }

  private take(frame: Uint8Array, index: number): void {
    const marked = inwards(frame, index);
    if (marked === undefined) this.refused += 1;
    else this.handler?.(marked);
  }
}

export class Uplinks implements Uplink {
  /** Frames of the network that bore a mark, or had no place for one. */
  refused = 0;
  readonly progress = { taken: 0, settled: 0, lost: 0 };
  private uplinks: readonly Uplink[] = [];

  /** Opens one uplink for each card; all of them or none. */
  static async open(
    count: number,
    handlers: FrameHandlers,
    openOne: (index: number, handlers: FrameHandlers) => Promise<Uplink>,
  ): Promise<Uplinks> {
    const all = new Uplinks();
    const opened: Uplink[] = [];
    try {
      for (let index = 0; index < count; index += 1) {
        const frame = (bytes: Uint8Array) => all.take(bytes, index, handlers);
        opened.push(await openOne(index, { ...handlers, frame, settled: () => all.settle(handlers) }));
      }
    } catch (error) {
      for (const uplink of opened) uplink.close();
      throw error;
    }
    all.uplinks = opened;
    return all;
  }

  send(frame: Uint8Array): void {
    const index = cardOf(frame);
    this.progress.taken += 1;
    this.uplinks[index]?.send(outwards(frame, index));
    this.note();
  }

  /**
   * Frames of two cards are not written in the order in which they were taken: so all are settled when nothing waits
   * anywhere, and none before.
   */
  private note(): void {
    const { progress } = this;
    const sum = (count: (progress: Progress) => number) =>
      this.uplinks.reduce((all, uplink) => all + count(uplink.progress), 0);
    progress.lost = sum(({ lost }) => lost);
    if (sum(({ taken, settled }) => taken - settled) === 0) progress.settled = progress.taken;
  }

  private settle(handlers: FrameHandlers): void {
    this.note();
    handlers.settled?.();
  }

  unwritten(): Uint8Array[] {
    const marked = (frames: Uint8Array[], card: number) =>
      card === 0 ? frames : frames.map((one) => withCard(one, card));
    return this.uplinks.flatMap((uplink, index) => marked(uplink.unwritten(), index));
  }

  pause(): void {
    for (const uplink of this.uplinks) uplink.pause();
  }

  resume(): void {
    for (const uplink of this.uplinks) uplink.resume();
  }

  close(): void {
    for (const uplink of this.uplinks) uplink.close();
  }

  get problem(): string {
    return this.uplinks
      .flatMap(({ problem }, index) => (problem === '' ? [] : [`card ${index}: ${problem}`]))
      .join('; ');
  }

  get counters() {
    const sum = { framesIn: 0, bytesIn: 0, framesOut: 0, bytesOut: 0 };
    for (const { counters } of this.uplinks) {
      sum.framesIn += counters.framesIn;
      sum.bytesIn += counters.bytesIn;
      sum.framesOut += counters.framesOut;
      sum.bytesOut += counters.bytesOut;
    }
    return sum;
  }

  private take(frame: Uint8Array, index: number, handlers: FrameHandlers): void {
    const marked = inwards(frame, index);
    if (marked === undefined) this.refused += 1;
    else handlers.frame(marked);
  }
}
