// Tells the secondary which addresses the guest has: after a takeover it announces them, and it may never see its own
// guest claim them. All of them are told when it is ready; then, now and then, when one has come or gone.

import type { GuestAddresses } from '../../proxy/guest-addresses.ts';
import { addressesEveryMs } from '../limits.ts';
import { messages } from '../pairing/message.ts';

export interface AddressNewsParts {
  addresses: Pick<GuestAddresses, 'said' | 'heard' | 'expire' | 'encode'>;
  /** To the secondary of now; lost without one. */
  say: (type: number, ...parts: Uint8Array[]) => void;
}

export class AddressNews {
  private readonly parts: AddressNewsParts;
  private hasNews = false;
  private toldAt = Number.NEGATIVE_INFINITY;

  constructor(parts: AddressNewsParts) {
    this.parts = parts;
  }

  /** A frame of the guest has left. */
  said(frame: Uint8Array, now: number): void {
    if (this.parts.addresses.said(frame, now)) this.hasNews = true;
  }

  /** A frame of the network goes to the guest. */
  heard(frame: Uint8Array): void {
    if (this.parts.addresses.heard(frame)) this.hasNews = true;
  }

  tick(now: number): void {
    if (this.parts.addresses.expire(now)) this.hasNews = true;
    if (this.hasNews && now - this.toldAt >= addressesEveryMs) this.tell(now);
  }

  tell(now: number): void {
    this.hasNews = false;
    this.toldAt = now;
    this.parts.say(messages.addresses, this.parts.addresses.encode());
  }
}
