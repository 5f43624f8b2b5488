// Frames of the network that came to a secondary, which nobody asked yet: kept for a moment, since after a takeover the
// guest is to hear what was said while nobody answered. Older ones are no news to a guest: whoever still wants an
// answer has asked again.

import { Fifo } from '../../base/fifo.ts';
import { earlyFramesMax, earlyMs } from '../limits.ts';

export class EarlyFrames {
  private readonly frames = new Fifo<{ at: number; frame: Uint8Array }>();

  get length(): number {
    return this.frames.length;
  }

  /** The frame is valid during the call only. */
  add(frame: Uint8Array, now: number): void {
    this.frames.push({ at: now, frame: Uint8Array.from(frame) });
    this.forget(now);
  }

  /** Those of the last moment, oldest first. */
  recent(now: number): Uint8Array[] {
    this.forget(now);
    return [...this.frames].map(({ frame }) => frame);
  }

  private forget(now: number): void {
    for (let oldest = this.frames.peek(); oldest !== undefined; oldest = this.frames.peek()) {
      if (this.frames.length <= earlyFramesMax && now - oldest.at <= earlyMs) break;
      this.frames.shift();
    }
  }
}
