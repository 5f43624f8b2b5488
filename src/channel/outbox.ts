// What waits to be written: messages laid out back to back in slabs, so that everything sent in one tick leaves in one
// write. Small parts are copied into the slab (their memory is usually a receive buffer that is about to be reused);
// large ones are put between two pieces of slab as they are, because copying a batch of pages costs more than a write.
//
//    slab:  │ header payload header payload header │            │ header payload ...
//    out:   └──────────────── piece ───────────────┘ large part └────── piece

import { assert } from '../base/assert.ts';
import { headerBytes, nextSequence, writeHeader } from './frame.ts';
import { copiedPartBytesMax, messageBytesMax, slabBytes } from './limits.ts';

export class Outbox {
  /** Bytes laid out and not yet taken. */
  bytes = 0;
  /** Messages laid out since the beginning. */
  messages = 0;
  private sequence = 1;
  private slab: Buffer = Buffer.alloc(0);
  /** The piece being filled: [pieceStart, slabEnd) of the slab. */
  private pieceStart = 0;
  private slabEnd = 0;
  private pieces: Uint8Array[] = [];

  /** Lays out one message. */
  add(type: number, parts: readonly Uint8Array[]): void {
    let length = 0;
    for (const part of parts) length += part.length;
    assert(type > 0 && type < 256, `message type ${type} is out of range`);
    assert(length <= messageBytesMax, `a message of ${length} bytes is over the limit of ${messageBytesMax}`);
    const headerAt = this.reserve(headerBytes);
    writeHeader(this.slab, headerAt, { type, length, sequence: this.sequence, parts });
    for (const part of parts) this.addPart(part);
    this.sequence = nextSequence(this.sequence);
    this.messages += 1;
    this.bytes += headerBytes + length;
  }

  /** Everything laid out so far, in order. */
  take(): Uint8Array[] {
    this.endPiece();
    const pieces = this.pieces;
    this.pieces = [];
    this.bytes = 0;
    return pieces;
  }

  private addPart(part: Uint8Array): void {
    if (part.length === 0) return;
    if (part.length > copiedPartBytesMax) {
      this.endPiece();
      this.pieces.push(part);
      return;
    }
    const at = this.reserve(part.length);
    this.slab.set(part, at);
  }

  /** The place of the next `length` bytes, in a fresh slab when this one has no room: taken slabs are never reused. */
  private reserve(length: number): number {
    if (this.slabEnd + length > this.slab.length) {
      this.endPiece();
      this.slab = Buffer.allocUnsafeSlow(slabBytes);
      this.pieceStart = 0;
      this.slabEnd = 0;
    }
    const at = this.slabEnd;
    this.slabEnd += length;
    return at;
  }

  private endPiece(): void {
    if (this.slabEnd > this.pieceStart) this.pieces.push(this.slab.subarray(this.pieceStart, this.slabEnd));
    this.pieceStart = this.slabEnd;
  }
}
