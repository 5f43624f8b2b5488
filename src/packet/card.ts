// Which of the guest's network cards a frame belongs to, written into the frame itself: one of a further card carries a
// mark between its addresses and its type, as a VLAN tag would stand there. The first card's frames carry none.
//
//    0        6        12     14     16
//    | target | source | ffff | card | type | payload ...
//
// So everything that handles frames (comparing, translating, holding, checkpoints, what is said again at a takeover)
// keeps the cards apart without knowing of them: the mark is part of a flow's name (flow-key.ts). Only a node's edges
// know: marks are made and taken away there, and a frame that comes in with one is refused. 0xffff is reserved and
// nobody's type.

import { read16, write16 } from './checksum.ts';
import { ethernet, etherType } from './ethernet.ts';

export const cardMarkBytes = 4;

/** The number of the card in the mark; 0, the first card, without one. */
export function cardOf(frame: Uint8Array): number {
  const isMarked =
    frame.length >= ethernet.headerBytes + cardMarkBytes && read16(frame, ethernet.type) === etherType.card;
  return isMarked ? read16(frame, ethernet.headerBytes) : 0;
}

/** A copy with the mark of this card, which is none of the first. */
export function withCard(frame: Uint8Array, card: number): Uint8Array {
  const marked = new Uint8Array(frame.length + cardMarkBytes);
  marked.set(frame.subarray(0, ethernet.type));
  write16(marked, ethernet.type, etherType.card);
  write16(marked, ethernet.headerBytes, card);
  marked.set(frame.subarray(ethernet.type), ethernet.type + cardMarkBytes);
  return marked;
}

/** A copy without its mark. */
export function withoutCard(frame: Uint8Array): Uint8Array {
  const plain = new Uint8Array(frame.length - cardMarkBytes);
  plain.set(frame.subarray(0, ethernet.type));
  plain.set(frame.subarray(ethernet.type + cardMarkBytes), ethernet.type);
  return plain;
}
