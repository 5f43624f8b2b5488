// The addresses of the guest that are announced after a takeover, each in its VLAN: those that it claims itself
// (packet/claim.ts) in frames that leave, and that of its spec. Pure.
//
//   primary     learns from what its guest has said to the network, forgets what another machine of the network claims
//   secondary   is told the whole list whenever it changes: it may never see its guest say any of it
//
// What an announcement is for: switches must learn that the guest's MAC is behind another port now, in each VLAN in
// which it is; and neighbours that the address is still there. So a list that lacks an address costs little, and one
// that has an address too many would take it away from its owner. Hence only claims about the guest itself are learned,
// never the source of a packet, which the guest may only have passed on; and an address ends:
//
//   named by the spec ──► claimed ──► nobody claims it for guestAddressAgeMs, or another machine does: gone
//        │ the guest claims another address of that family, there       ▲
//        └──────────────────── from then on it must claim this one too ─┘
//
// A card without any address is announced all the same, by a frame that names its MAC alone.
//
//    list     isRouter, isNamed, number of tag bytes;  address bytes (one byte each);  tags;  address;      repeated
//             bit 7     bit 6    bits 0-5

import { announceMac } from '../packet/arp.ts';
import { cardMarkBytes, withCard } from '../packet/card.ts';
import { read16, write16 } from '../packet/checksum.ts';
import { announcementOf, type Claim, claimOf } from '../packet/claim.ts';
import { etherType } from '../packet/ethernet.ts';
import { tagBytesMax } from '../packet/limits.ts';
import { guestAddressAgeMs, guestAddressesMax } from './limits.ts';

/** A network card of the guest, and the address that its spec gives it. */
export interface Card {
  mac: Uint8Array;
  address?: Uint8Array;
}

/** So often at most: every tick asks. */
const lookEveryMs = 1000;

interface Known {
  claim: Claim;
  /** When the guest last claimed it. */
  at: number;
  /** By the spec, and the guest has claimed no other there. */
  isNamed: boolean;
}

const flag = { router: 0x80, named: 0x40 } as const;

export class GuestAddresses {
  /** The oldest first. */
  private known = new Map<string, Known>();
  private readonly cards: readonly Card[];
  private lookedAt = Number.NEGATIVE_INFINITY;

  /** `cards`: the guest's, in their order. */
  constructor(cards: readonly Card[]) {
    this.cards = cards;
    this.reset();
  }

  /** What the spec says and no more: the guest boots anew. */
  reset(): void {
    this.known.clear();
    for (const [index, { mac, address }] of this.cards.entries()) {
      if (address === undefined) continue;
      const claim = { mac, address, tags: markOf(index), isRouter: false, isReply: false };
      this.known.set(keyOf(claim), { claim, at: 0, isNamed: true });
    }
  }

  /** What the guest has said to the network. True when the list is another one now. */
  said(frame: Uint8Array, now: number): boolean {
    const claim = claimOf(frame);
    if (claim === undefined || claim.isReply || !this.isGuest(claim)) return false;
    const key = keyOf(claim);
    const known = this.known.get(key);
    if (known !== undefined) known.at = now;
    const isDoubted = known?.isNamed !== true && this.doubtNamed(claim, now);
    if (known !== undefined && known.claim.isRouter === claim.isRouter) return isDoubted;
    this.learn(key, { claim, at: now, isNamed: known?.isNamed === true });
    return true;
  }

  /** The guest has claimed another address where the spec names one: it may have given that up. */
  private doubtNamed(claim: Claim, now: number): boolean {
    let isDoubted = false;
    for (const known of this.known.values()) {
      if (!known.isNamed || !areAlike(known.claim, claim)) continue;
      known.isNamed = false;
      known.at = now;
      isDoubted = true;
    }
    return isDoubted;
  }

  /** What the network says. True when the list is another one now. */
  heard(frame: Uint8Array): boolean {
    const claim = claimOf(frame);
    return claim !== undefined && !this.isGuest(claim) && this.known.delete(keyOf(claim));
  }

  /** Forgets what the guest has not claimed for long. True when the list is another one now. */
  expire(now: number): boolean {
    if (now - this.lookedAt < lookEveryMs) return false;
    this.lookedAt = now;
    const { size } = this.known;
    for (const [key, { at, isNamed }] of this.known)
      if (!isNamed && now - at >= guestAddressAgeMs) this.known.delete(key);
    return this.known.size < size;
  }

  get count(): number {
    return this.known.size;
  }

  /** One frame for each address, and for each card without one, to everybody. */
  announcements(): Uint8Array[] {
    const claims = [...this.known.values()].map(({ claim }) => claim);
    const silent = [...this.cards.entries()].filter(
      ([index]) => !claims.some(({ tags }) => cardOfTags(tags) === index),
    );
    return [...claims.map(announcementOf), ...silent.map(([index, { mac }]) => onCard(announceMac(mac), index))];
  }

  /** The list, for the peer. */
  encode(): Uint8Array {
    const parts = [...this.known.values()].flatMap(({ claim: { tags, address, isRouter }, isNamed }) => [
      Uint8Array.of(tags.length | (isRouter ? flag.router : 0) | (isNamed ? flag.named : 0), address.length),
      tags,
      address,
    ]);
    return Uint8Array.from(Buffer.concat(parts));
  }

  /** Takes the peer's list in place of the own; false when it is none. */
  accept(list: Uint8Array, now: number): boolean {
    const all = new Map<string, Known>();
    for (let at = 0; at < list.length; ) {
      const flags = list[at] as number;
      const tagBytes = flags & 0x3f;
      const addressBytes = list[at + 1];
      const end = at + 2 + tagBytes + (addressBytes ?? 0);
      const isAddress = addressBytes === 4 || addressBytes === 16;
      if (!isAddress || tagBytes % 4 !== 0 || tagBytes > tagBytesMax || end > list.length) return false;
      // The list lies in the link's receive buffer, and `slice` of a Buffer is no copy.
      const tags = Uint8Array.from(list.subarray(at + 2, at + 2 + tagBytes));
      const isRouter = (flags & flag.router) !== 0;
      const mac = this.cards[cardOfTags(tags)]?.mac;
      if (mac === undefined) return false;
      const address = Uint8Array.from(list.subarray(end - addressBytes, end));
      const claim = { mac, tags, isRouter, isReply: false, address };
      all.set(keyOf(claim), { claim, at: now, isNamed: (flags & flag.named) !== 0 });
      at = end;
    }
    if (all.size > guestAddressesMax) return false;
    this.known = all;
    return true;
  }

  /** The newest is the last one; at the bound the oldest goes that the spec does not name. */
  private learn(key: string, known: Known): void {
    this.known.delete(key);
    const oldest = [...this.known].find(([, { isNamed }]) => !isNamed)?.[0];
    if (this.known.size >= guestAddressesMax && oldest !== undefined) this.known.delete(oldest);
    this.known.set(key, known);
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

function onCard(frame: Uint8Array, card: number): Uint8Array {
  return card === 0 ? frame : withCard(frame, card);
}

/** Both are of one family, on one card, in one VLAN. */
function areAlike(one: Claim, other: Claim): boolean {
  return one.address.length === other.address.length && Buffer.compare(one.tags, other.tags) === 0;
}

function keyOf({ tags, address }: Claim): string {
  return `${Buffer.from(tags).toString('hex')} ${Buffer.from(address).toString('hex')}`;
}
