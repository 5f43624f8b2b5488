// The addresses of the guest that are announced after a takeover: the one of its spec, and those that it has claimed
// itself (packet/claim.ts), each in its VLAN. Pure.
//
//   primary     learns from what its guest says, forgets what another machine of the network claims
//   secondary   is told the whole list whenever it changes: it may never see its guest say any of it
//
// What an announcement is for: switches must learn that the guest's MAC is behind another port now, in each VLAN in which
// it is; and neighbours that the address is still there. So a list that lacks an address costs little, and one that has
// an address too many would take it away from its owner. Hence only claims about the guest itself are learned, never
// the source of a packet, which the guest may only have passed on.
//
//    list     isRouter and number of tag bytes, address bytes (one byte each), tags, address;  repeated
//             bit 7, bits 0-6

import { cardMarkBytes } from '../packet/card.ts';
import { read16, write16 } from '../packet/checksum.ts';
import { announcementOf, type Claim, claimOf } from '../packet/claim.ts';
import { etherType } from '../packet/ethernet.ts';
import { tagBytesMax } from '../packet/limits.ts';
import { guestAddressesMax } from './limits.ts';

/** A network card of the guest, and the address that its spec gives it. */
export interface Card {
  mac: Uint8Array;
  address?: Uint8Array;
}

export class GuestAddresses {
  /** Learned and not answered for by the spec; the oldest first. */
  private learned = new Map<string, Claim>();
  private readonly cards: readonly Card[];
  private readonly own: readonly Claim[];

  /** `cards`: the guest's, in their order. */
  constructor(cards: readonly Card[]) {
    this.cards = cards;
    this.own = cards.flatMap(({ mac, address }, index) =>
      address === undefined ? [] : [{ mac, address, tags: markOf(index), isRouter: false, isReply: false }],
    );
  }

  /** What the guest says. True when the list is another one now. */
  said(frame: Uint8Array): boolean {
    const claim = claimOf(frame);
    if (claim === undefined || claim.isReply || !this.isGuest(claim)) return false;
    const key = keyOf(claim);
    if (this.own.some((one) => keyOf(one) === key) || this.learned.get(key)?.isRouter === claim.isRouter) return false;
    this.learn(key, claim);
    return true;
  }

  /** What the network says. True when the list is another one now. */
  heard(frame: Uint8Array): boolean {
    const claim = claimOf(frame);
    return claim !== undefined && !this.isGuest(claim) && this.learned.delete(keyOf(claim));
  }

  get count(): number {
    return this.learned.size + this.own.length;
  }

  /** One frame for each address, to everybody. */
  announcements(): Uint8Array[] {
    return [...this.own, ...this.learned.values()].map(announcementOf);
  }

  /** What was learned, for the peer. */
  encode(): Uint8Array {
    const parts = [...this.learned.values()].flatMap(({ tags, address, isRouter }) => [
      Uint8Array.of(tags.length | (isRouter ? 0x80 : 0), address.length),
      tags,
      address,
    ]);
    return Uint8Array.from(Buffer.concat(parts));
  }

  /** Takes the peer's list in place of the own; false when it is none. */
  accept(list: Uint8Array): boolean {
    const learned = new Map<string, Claim>();
    for (let at = 0; at < list.length; ) {
      const tagBytes = (list[at] as number) & 0x7f;
      const addressBytes = list[at + 1];
      const end = at + 2 + tagBytes + (addressBytes ?? 0);
      const isAddress = addressBytes === 4 || addressBytes === 16;
      if (!isAddress || tagBytes % 4 !== 0 || tagBytes > tagBytesMax || end > list.length) return false;
      const tags = list.slice(at + 2, at + 2 + tagBytes);
      const isRouter = ((list[at] as number) & 0x80) !== 0;
      const mac = this.cards[cardOfTags(tags)]?.mac;
      if (mac === undefined) return false;
      const claim = { mac, tags, isRouter, isReply: false, address: list.slice(end - addressBytes, end) };
      learned.set(keyOf(claim), claim);
      at = end;
    }
    if (learned.size > guestAddressesMax) return false;
    this.learned = learned;
    return true;
  }

  private learn(key: string, claim: Claim): void {
    this.learned.delete(key);
    const [oldest] = this.learned.keys();
    if (this.learned.size >= guestAddressesMax && oldest !== undefined) this.learned.delete(oldest);
    this.learned.set(key, claim);
  }

  private isGuest({ mac, tags }: Claim): boolean {
    const own = this.cards[cardOfTags(tags)];
    return own !== undefined && Buffer.compare(mac, own.mac) === 0;
  }
}

/** The mark as it stands in frames of this card; none of the first. */
function markOf(card: number): Uint8Array {
  const mark = new Uint8Array(card === 0 ? 0 : cardMarkBytes);
  if (card === 0) return mark;
  write16(mark, 0, etherType.card);
  write16(mark, 2, card);
  return mark;
}

function cardOfTags(tags: Uint8Array): number {
  return tags.length >= cardMarkBytes && read16(tags, 0) === etherType.card ? read16(tags, 2) : 0;
}

function keyOf({ tags, address }: Claim): string {
  return `${Buffer.from(tags).toString('hex')} ${Buffer.from(address).toString('hex')}`;
}
