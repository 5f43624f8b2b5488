// Segments of the PVM that wait, in the order of their sequence numbers (an RST keeps its place).
//
// A segment that is looked at lies in the frame that brought it; only one that goes on waiting is copied (`keepFresh`),
// into a pooled buffer, and the records are used again: equal traffic allocates nothing per frame.

import type { FrameView } from '../../../packet/frame-view.ts';
import { advance, distance } from '../../../packet/sequence.ts';
import { tcpFlag } from '../../../packet/tcp.ts';
import { asBuffer, equalPrefix } from '../../frames/byte-stream.ts';
import type { FramePool } from '../../frames/frame-pool.ts';
import { emptyParts, fillParts } from '../../frames/rewrite.ts';
import { sparePiecesMax } from '../../limits.ts';
import type { CompareSink, Moment } from '../sink.ts';
import type { Held, TcpStream } from './stream.ts';

const noFrame = Buffer.alloc(0);

export class HeldSegments {
  private readonly sink: CompareSink;
  private readonly pool: FramePool;
  private readonly moment: Moment;
  private readonly spare: Held[] = [];
  /** The held segment that still lies in the frame being looked at. */
  private fresh: Held | undefined = undefined;

  constructor(sink: CompareSink, pool: FramePool, moment: Moment) {
    this.sink = sink;
    this.pool = pool;
    this.moment = moment;
  }

  /** Puts the segment in its place; false when what waits already says all of it. */
  add(stream: TcpStream, view: FrameView, order: number, isOpaque: boolean): boolean {
    const held = this.takeSpare(view, order);
    held.isOpaque = isOpaque;
    let at = stream.held.length;
    if (!view.isReset) {
      while (at > 0 && isBehind(stream.held[at - 1] as Held, held)) at -= 1;
      const isKnown = isRepeated(stream.held[at - 1], held) || isRepeated(stream.held[at], held);
      if (isKnown && !isOpaque) {
        this.giveBack(held);
        return false;
      }
    }
    if (at === stream.held.length) stream.held.push(held);
    else stream.held.splice(at, 0, held);
    this.fresh = held;
    stream.heldBytes += held.frame.length;
    this.sink.heldChanged(1, held.frame.length);
    return true;
  }

  /** The frame being looked at goes back to whoever brought it: what waits of it must be ours. */
  keepFresh(): void {
    const held = this.fresh;
    this.fresh = undefined;
    if (held === undefined || held.owned) return;
    held.frame = this.pool.copy(held.frame, 0, held.frame.length);
    held.owned = true;
  }

  /** The first segment waits no more. Give it back when it has left. */
  removeHead(stream: TcpStream, head: Held): void {
    if (stream.held.length === 1) stream.held.pop();
    else stream.held.shift();
    if (head === this.fresh) this.fresh = undefined;
    stream.heldBytes -= head.frame.length;
    this.sink.heldChanged(-1, -head.frame.length);
  }

  /** Takes everything off the stream. */
  takeAll(stream: TcpStream): Held[] {
    const held = stream.held;
    if (held.length === 0) return held;
    this.sink.heldChanged(-held.length, -stream.heldBytes);
    stream.held = [];
    stream.heldBytes = 0;
    return held;
  }

  /** Nothing refers to `held` any more. */
  giveBack(held: Held): void {
    if (held.owned) this.pool.giveBack(held.frame as Buffer);
    held.owned = false;
    held.frame = noFrame;
    if (this.spare.length < sparePiecesMax) this.spare.push(held);
  }

  private takeSpare(view: FrameView, order: number): Held {
    const held = this.spare.pop() ?? { ...emptyParts(), time: 0, order: 0, owned: false, isOpaque: false };
    held.time = this.moment.now;
    held.order = order;
    return fillParts(held, view);
  }
}

function isBehind(other: Held, held: Held): boolean {
  return (other.flags & tcpFlag.rst) === 0 && distance(other.sequence, held.sequence) > 0;
}

/** Whether `other`, which waits already, says all that `held` says. */
function isRepeated(other: Held | undefined, held: Held): boolean {
  if (other === undefined || ((other.flags ^ held.flags) & (tcpFlag.syn | tcpFlag.rst)) !== 0) return false;
  const ends = (parts: Held) => advance(parts.sequence, parts.payloadBytes + (parts.flags & tcpFlag.fin));
  if (distance(other.sequence, held.sequence) > 0 || distance(ends(other), ends(held)) < 0) return false;
  const at = distance(held.sequence, other.sequence);
  const from = other.payloadAt + at;
  const count = held.payloadBytes;
  return equalPrefix(asBuffer(other.frame), from, asBuffer(held.frame), held.payloadAt, count) === count;
}
