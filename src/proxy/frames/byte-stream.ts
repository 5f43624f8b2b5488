// The SVM's bytes of one connection that the PVM has not sent yet.
//
//        base            next
//    ------|===============|- - - -|=====|- - - -|===|
//          contiguous               out of order, waiting for the gap
//
// A piece may be *borrowed* from the frame that is being looked at: if nothing took it by the end of the call, `keep`
// copies it. So a byte that the PVM is waiting for is never copied. The owner checks `bytes` against its limits.

import { advance, distance } from '../../packet/sequence.ts';
import { sparePiecesMax } from '../limits.ts';
import type { FramePool } from './frame-pool.ts';

interface Piece {
  sequence: number;
  buffer: Buffer;
  from: number;
  to: number;
  /** Whether `buffer` is of the pool, and this piece's alone. */
  isOwned: boolean;
}

/** Pieces to use again. */
const spare: Piece[] = [];
const nothing = Buffer.alloc(0);

function takePiece(sequence: number, buffer: Buffer, from: number, to: number): Piece {
  const piece = spare.pop();
  if (piece === undefined) return { sequence, buffer, from, to, isOwned: false };
  piece.sequence = sequence;
  piece.buffer = buffer;
  piece.from = from;
  piece.to = to;
  return piece;
}

export class ByteStream {
  /** The first byte that is still here, and the one behind the last contiguous one. */
  base = 0;
  next = 0;
  /** Bytes held, in and out of order. */
  bytes = 0;
  private readonly pieces: Piece[] = [];
  private readonly apart: Piece[] = [];
  private readonly pool: FramePool;
  /** The piece that still lies in the frame being looked at. */
  private borrowed: Piece | undefined = undefined;

  constructor(pool: FramePool) {
    this.pool = pool;
  }

  reset(sequence: number): void {
    this.base = sequence;
    this.next = sequence;
    this.bytes = 0;
    this.pieces.length = 0;
    this.apart.length = 0;
    this.borrowed = undefined;
  }

  get piecesApart(): number {
    return this.apart.length;
  }

  /** Takes bytes [from, to) of `frame`, which stand at `sequence`. Bytes that are already here are ignored. */
  insert(sequence: number, frame: Buffer, from: number, to: number): void {
    const known = Math.max(0, distance(this.next, sequence));
    if (known >= to - from) return;
    const piece = takePiece(advance(sequence, known), frame, from + known, to);
    this.borrowed = piece;
    if (piece.sequence === this.next) {
      this.append(piece);
      this.join();
    } else this.insertApart(piece);
  }

  private append(piece: Piece): void {
    this.pieces.push(piece);
    this.next = advance(this.next, piece.to - piece.from);
    this.bytes += piece.to - piece.from;
  }

  private insertApart(piece: Piece): void {
    let at = this.apart.length;
    while (at > 0 && distance((this.apart[at - 1] as Piece).sequence, piece.sequence) > 0) at -= 1;
    const before = this.apart[at - 1];
    if (before !== undefined && before.sequence === piece.sequence && before.to - before.from >= piece.to - piece.from)
      return;
    this.apart.splice(at, 0, piece);
    this.bytes += piece.to - piece.from;
  }

  /** Moves pieces over for which the gap has closed. */
  private join(): void {
    for (;;) {
      const piece = this.apart[0];
      if (piece === undefined || distance(piece.sequence, this.next) > 0) return;
      this.apart.shift();
      this.bytes -= piece.to - piece.from;
      const known = distance(this.next, piece.sequence);
      if (known >= piece.to - piece.from) continue;
      piece.from += known;
      piece.sequence = this.next;
      this.append(piece);
    }
  }

  /** Copies what is still borrowed. Call it before the frame handed to `insert` stops being valid. */
  keep(): void {
    const piece = this.borrowed;
    this.borrowed = undefined;
    if (piece === undefined) return;
    if (piece.from >= piece.to) {
      this.giveBack(piece);
      return;
    }
    piece.buffer = this.pool.copy(piece.buffer, piece.from, piece.to);
    piece.to -= piece.from;
    piece.from = 0;
    piece.isOwned = true;
  }

  /** How many of `count` bytes at `sequence` equal those of `frame` at `from`. All of them must be contiguous here. */
  equalBytes(sequence: number, frame: Buffer, from: number, count: number): number {
    let skip = distance(sequence, this.base);
    let done = 0;
    for (const piece of this.pieces) {
      if (done >= count) break;
      const length = piece.to - piece.from;
      if (skip >= length) {
        skip -= length;
        continue;
      }
      const step = Math.min(length - skip, count - done);
      const equal = equalPrefix(frame, from + done, piece.buffer, piece.from + skip, step);
      done += equal;
      if (equal < step) break;
      skip = 0;
    }
    return done;
  }

  /** Up to `count` bytes at `sequence`, for a record of a divergence. */
  peek(sequence: number, count: number): Uint8Array {
    let skip = distance(sequence, this.base);
    const found: number[] = [];
    for (const piece of this.pieces) {
      for (let at = piece.from; at < piece.to && found.length < count; at += 1) {
        if (skip > 0) skip -= 1;
        else if (skip === 0) found.push(piece.buffer[at] as number);
      }
    }
    return Uint8Array.from(found);
  }

  /** Puts other bytes in place of those that are here, from `sequence` on. */
  replace(sequence: number, bytes: Uint8Array): void {
    let at = distance(this.base, sequence);
    for (const piece of this.pieces) {
      for (let index = piece.from; index < piece.to; index += 1, at += 1) {
        const byte = bytes[at];
        if (byte !== undefined) piece.buffer[index] = byte;
      }
    }
  }

  /** Forgets everything before `sequence`. */
  consume(sequence: number): void {
    let count = Math.min(distance(sequence, this.base), distance(this.next, this.base));
    if (count <= 0) return;
    this.base = advance(this.base, count);
    this.bytes -= count;
    let gone = 0;
    for (const piece of this.pieces) {
      const length = piece.to - piece.from;
      if (length > count) {
        piece.from += count;
        piece.sequence = advance(piece.sequence, count);
        break;
      }
      piece.from = piece.to;
      count -= length;
      gone += 1;
      if (piece !== this.borrowed) this.giveBack(piece);
    }
    // Taking the only one off the end keeps the array's memory, which emptying it by its length would not.
    if (gone === 1 && this.pieces.length === 1) this.pieces.pop();
    else if (gone > 0) this.pieces.splice(0, gone);
  }

  private giveBack(piece: Piece): void {
    if (piece.isOwned) this.pool.giveBack(piece.buffer);
    piece.isOwned = false;
    piece.buffer = nothing;
    if (spare.length < sparePiecesMax) spare.push(piece);
  }
}

/** How many of the first `count` bytes are equal. */
export function equalPrefix(a: Buffer, aFrom: number, b: Buffer, bFrom: number, count: number): number {
  if (count > 64 && a.compare(b, bFrom, bFrom + count, aFrom, aFrom + count) === 0) return count;
  let at = 0;
  while (at < count && a[aFrom + at] === b[bFrom + at]) at += 1;
  return at;
}

/** The same bytes as a Buffer, without copying. */
export function asBuffer(frame: Uint8Array): Buffer {
  return Buffer.isBuffer(frame) ? frame : Buffer.from(frame.buffer, frame.byteOffset, frame.byteLength);
}
