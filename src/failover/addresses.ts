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

import { announcementOf, type Claim, claimOf } from '../packet/claim.ts';
import { addressesMax } from './limits.ts';

export class GuestAddresses {
  /** Learned and not answered for by the spec; the oldest first. */
  private learned = new Map<string, Claim>();
  private readonly own: Claim;

  constructor(mac: Uint8Array, address: Uint8Array) {
    this.own = { mac, address, tags: new Uint8Array(0), isRouter: false, isReply: false };
  }

  /** What the guest says. True when the list is another one now. */
  said(frame: Uint8Array): boolean {
    const claim = claimOf(frame);
    if (claim === undefined || claim.isReply || !this.isGuest(claim.mac)) return false;
    const key = keyOf(claim);
    if (key === keyOf(this.own) || this.learned.get(key)?.isRouter === claim.isRouter) return false;
    this.learn(key, claim);
    return true;
  }

  /** What the network says. True when the list is another one now. */
  heard(frame: Uint8Array): boolean {
    const claim = claimOf(frame);
    return claim !== undefined && !this.isGuest(claim.mac) && this.learned.delete(keyOf(claim));
  }

  get count(): number {
    return this.learned.size + 1;
  }

  /** One frame for each address, to everybody. */
  announcements(): Uint8Array[] {
    return [this.own, ...this.learned.values()].map(announcementOf);
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
      if (!isAddress || tagBytes % 4 !== 0 || tagBytes > 8 || end > list.length) return false;
      const tags = list.slice(at + 2, at + 2 + tagBytes);
      const isRouter = ((list[at] as number) & 0x80) !== 0;
      const claim = { ...this.own, tags, isRouter, address: list.slice(end - addressBytes, end) };
      learned.set(keyOf(claim), claim);
      at = end;
    }
    if (learned.size > addressesMax) return false;
    this.learned = learned;
    return true;
  }

  private learn(key: string, claim: Claim): void {
    this.learned.delete(key);
    const [oldest] = this.learned.keys();
    if (this.learned.size >= addressesMax && oldest !== undefined) this.learned.delete(oldest);
    this.learned.set(key, claim);
  }

  private isGuest(mac: Uint8Array): boolean {
    return Buffer.compare(mac, this.own.mac) === 0;
  }
}

function keyOf({ tags, address }: Claim): string {
  return `${Buffer.from(tags).toString('hex')} ${Buffer.from(address).toString('hex')}`;
}
