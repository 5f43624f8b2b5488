// Memory for the pages of a capture, kept from one checkpoint to the next: during the pause nothing is allocated, and
// no page of it is touched for the first time. Grows when a checkpoint needs more, and stays that large.
//
//   reserve(bytes)   before the guest is stopped: grows, on another thread
//   take(bytes)      during the pause
//   give(buffer)     when the checkpoint was sent or abandoned
//
// Two buffers at most are out at once: the checkpoint being sent and the one being captured.

import { ColoError, errorCodes } from '../base/errors.ts';
import { hugeBuffer } from './libc.ts';
import { captureBuffersMax, capturePagesBytesFirst, capturePagesBytesMax } from './limits.ts';

export class CapturePool {
  #free: Buffer | undefined;
  #lent = 0;

  /** Makes the next take() of up to `bytes` free of allocation. Beyond the limits it does nothing: take() refuses. */
  async reserve(bytes: number): Promise<void> {
    if (bytes > capturePagesBytesMax || this.#lent === captureBuffersMax || (this.#free?.length ?? 0) >= bytes) return;
    this.#free = undefined;
    const grown = await hugeBuffer(sizeFor(bytes));
    this.#free = larger(this.#free, grown);
  }

  /** A buffer of at least `bytes`; give it back. Throws at the limits, with nothing changed. */
  take(bytes: number): Buffer {
    if (bytes > capturePagesBytesMax) {
      const text = `One checkpoint holds ${bytes} bytes of pages, more than ${capturePagesBytesMax}.`;
      throw new ColoError(errorCodes.checkpoint, text);
    }
    if (this.#lent === captureBuffersMax) {
      throw new ColoError(errorCodes.checkpoint, `${captureBuffersMax} captured checkpoints are still in memory.`);
    }
    const kept = this.#free;
    this.#free = undefined;
    this.#lent++;
    // More was written since reserve() than it left room for: slower, but right.
    return kept !== undefined && kept.length >= bytes ? kept : Buffer.allocUnsafeSlow(sizeFor(bytes));
  }

  /** Takes back a buffer of take(). The larger one is kept: it fits every request of the smaller. */
  give(buffer: Buffer): void {
    this.#lent--;
    this.#free = larger(this.#free, buffer);
  }
}

function larger(kept: Buffer | undefined, other: Buffer): Buffer {
  return kept !== undefined && kept.length > other.length ? kept : other;
}

function sizeFor(bytes: number): number {
  const steps = Math.max(1, Math.ceil(bytes / capturePagesBytesFirst));
  return Math.min(capturePagesBytesMax, steps * capturePagesBytesFirst);
}
