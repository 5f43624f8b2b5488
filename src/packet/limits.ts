// Bounds of looking into a frame, and what happens at each.

import { cardMarkBytes } from './card.ts';

/**
 * VLAN tags of a frame that are looked behind. One with more is compared as a whole, and no address is learned from it.
 */
export const tagsMax = 2;

/**
 * Bytes of a card's mark and of the VLAN tags before a learned address. A peer's list of addresses with more is
 * refused.
 */
export const tagBytesMax = cardMarkBytes + 4 * tagsMax;

/** Extension headers of IPv6 that are looked at. A packet with more is compared as a whole, and counted as refused. */
export const extensionsMax = 8;
