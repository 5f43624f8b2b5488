// The bytes of one connection that have left and that its client has not acknowledged: what a retransmission is
// compared with. The SVM said the same, or a checkpoint covers them; other bytes at the same place are neither.
//
//            base                          next
//    --------|======|======|======|========|          pieces, without a gap
//    acked          kept                       not left yet
//
// A frame that waited and has left goes on lying in its pooled buffer, so that nothing is copied for it.

import { advance, distance } from '../../../packet/sequence.ts';
import { asBuffer, equalPrefix } from '../../frames/byte-stream.ts';
import type { FramePool } from '../../frames/frame-pool.ts';
import { sparePiecesMax } from '../../limits.ts';

interface Piece {
  /** It comes from the pool, and is this piece's alone. */
  buffer: Buffer;
  from: number;
  to: number;
  next: Piece | undefined;
}

const nothing = Buffer.alloc(0);

/** Pieces to use again, in a chain. */
let spare: Piece | undefined;
let spares = 0;

export class SentBytes {
  /** The first byte that is here, and the one behind the last. */
  base: number;
  next: number;
  /** Bytes of memory. */
  bytes = 0;
  private oldest: Piece | undefined = undefined;
  private newest: Piece | undefined = undefined;
  private readonly pool: FramePool;

  constructor(pool: FramePool, sequence: number) {
    this.pool = pool;
    this.base = sequence;
    this.next = sequence;
  }

  /** Nothing is known of what lies before `sequence`. */
  reset(sequence: number): void {
    while (this.dropOldest());
    this.base = sequence;
    this.next = sequence;
  }

  /**
   * Bytes [from, to) of `frame` have left at `sequence`. `isOurs`: the frame is of the pool, and is ours from here on;
   * it is given back when it is not kept.
   */
  add(sequence: number, frame: Uint8Array, from: number, to: number, isOurs: boolean): void {
    if (distance(sequence, this.next) > 0) this.reset(sequence);
    const known = distance(this.next, sequence);
    if (known !== 0) this.replace(sequence, frame, from, to);
    const start = from + known;
    if (start >= to) {
      if (isOurs) this.pool.giveBack(frame as Buffer);
    } else if (isOurs) this.push(frame as Buffer, start, to);
    else this.push(this.pool.copy(frame, start, to), 0, to - start);
  }

  private push(buffer: Buffer, from: number, to: number): void {
    const piece = takePiece(buffer, from, to);
    if (this.newest === undefined) this.oldest = piece;
    else this.newest.next = piece;
    this.newest = piece;
    this.bytes += buffer.length;
    this.next = advance(this.next, to - from);
  }

  /** Bytes that have left before have left again, by a commit: they may be others. */
  private replace(sequence: number, frame: Uint8Array, from: number, to: number): void {
    this.overlaps(sequence, to - from, (piece, at, offset, count) => {
      asBuffer(frame).copy(piece.buffer, piece.from + at, from + offset, from + offset + count);
      return true;
    });
  }

  /** Whether bytes [from, to) of `frame`, at `sequence`, are all here, and equal. */
  matches(sequence: number, frame: Uint8Array, from: number, to: number): boolean {
    if (distance(sequence, this.base) < 0 || distance(advance(sequence, to - from), this.next) > 0) return false;
    const bytes = asBuffer(frame);
    return this.overlaps(
      sequence,
      to - from,
      (piece, at, offset, count) => equalPrefix(bytes, from + offset, piece.buffer, piece.from + at, count) === count,
    );
  }

  /** Visits what is here of `bytes` at `sequence`, until a visit says false. */
  private overlaps(
    sequence: number,
    bytes: number,
    visit: (piece: Piece, at: number, offset: number, count: number) => boolean,
  ): boolean {
    let start = distance(this.base, sequence);
    for (let piece = this.oldest; piece !== undefined && start < bytes; piece = piece.next) {
      const length = piece.to - piece.from;
      const at = Math.max(0, -start);
      const offset = Math.max(0, start);
      const count = Math.min(length - at, bytes - offset);
      if (count > 0 && !visit(piece, at, offset, count)) return false;
      start += length;
    }
    return true;
  }

  /** The client has everything before `sequence`. */
  acked(sequence: number): void {
    let count = Math.min(distance(sequence, this.base), distance(this.next, this.base));
    for (let piece = this.oldest; piece !== undefined && count > 0; piece = this.oldest) {
      const length = piece.to - piece.from;
      if (length > count) {
        piece.from += count;
        this.base = advance(this.base, count);
        return;
      }
      count -= length;
      this.dropOldest();
    }
  }

  /** Forgets the oldest piece; false when there is none. */
  dropOldest(): boolean {
    const piece = this.oldest;
    if (piece === undefined) return false;
    this.oldest = piece.next;
    if (this.oldest === undefined) this.newest = undefined;
    this.base = advance(this.base, piece.to - piece.from);
    this.bytes -= piece.buffer.length;
    this.pool.giveBack(piece.buffer);
    giveBack(piece);
    return true;
  }
}

function takePiece(buffer: Buffer, from: number, to: number): Piece {
  const piece = spare;
  if (piece === undefined) return { buffer, from, to, next: undefined };
  spare = piece.next;
  spares -= 1;
  piece.buffer = buffer;
  piece.from = from;
  piece.to = to;
  piece.next = undefined;
  return piece;
}

function giveBack(piece: Piece): void {
  piece.buffer = nothing;
  piece.next = undefined;
  if (spares >= sparePiecesMax) return;
  piece.next = spare;
  spare = piece;
  spares += 1;
}
