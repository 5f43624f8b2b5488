// Frames of the network on their way to the primary's guest, around a capture (checkpointer.ts has the order):
//
//   network ──► hold? ──yes──► wait ──release──┐
//                  └──no──────────────────────►┴──► deliver ──► remembered for replayWindowMs
//
// While a capture begins, frames wait, so that it is clear which side of the checkpoint they belong to. When QEMU could
// not take what it was given in time, the last moments are repeated to the secondary: a duplicate frame is harmless.

import { Fifo } from '../../base/fifo.ts';
import { ingressHeldFramesMax, replayWindowMs } from '../limits.ts';

interface Recent {
  at: number;
  frame: Uint8Array;
}

export class Ingress {
  /** Frames that found no room while a capture began. */
  dropped = 0;
  private readonly deliver: (frame: Uint8Array, now: number) => void;
  private held: Uint8Array[] | undefined;
  private readonly recent = new Fifo<Recent>();

  /** `deliver`: to the guest and its secondary; the frame is valid during the call. */
  constructor(deliver: (frame: Uint8Array, now: number) => void) {
    this.deliver = deliver;
  }

  /** A frame of the network. `isPaired`: there is a secondary that may have to be told again. */
  take(frame: Uint8Array, now: number, isPaired: boolean): void {
    if (this.held === undefined) this.pass(frame, now, isPaired);
    else if (this.held.length < ingressHeldFramesMax) this.held.push(Uint8Array.from(frame));
    else this.dropped += 1;
  }

  /** From now on frames wait, so that QEMU can take what it has been given. */
  hold(): void {
    this.held ??= [];
  }

  /** What waited goes on its way, behind the marker. */
  release(now: number, isPaired: boolean): void {
    const held = this.held;
    this.held = undefined;
    for (const frame of held ?? []) this.pass(frame, now, isPaired);
  }

  /** What was delivered in the last moments, oldest first. */
  *lastMoments(now: number): Generator<Uint8Array> {
    for (const { at, frame } of this.recent) if (now - at <= replayWindowMs) yield frame;
  }

  private pass(frame: Uint8Array, now: number, isPaired: boolean): void {
    this.deliver(frame, now);
    if (!isPaired) return;
    this.recent.push({ at: now, frame: Uint8Array.from(frame) });
    for (let oldest = this.recent.peek(); oldest !== undefined; oldest = this.recent.peek()) {
      if (now - oldest.at <= replayWindowMs * 4 && this.recent.length <= ingressHeldFramesMax) break;
      this.recent.shift();
    }
  }
}
