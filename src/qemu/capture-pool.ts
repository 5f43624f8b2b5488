// Memory for the pages of a capture, kept from one checkpoint to the next: during the pause nothing is allocated, and
// no page of it is touched for the first time. Grows when a checkpoint needs more, and shrinks when none of many did;
// memory that is not kept goes back to the kernel at once.
//
//   reserve(bytes)   before the guest is stopped: grows, on another thread
//   take(bytes)      during the pause
//   give(buffer)     when the checkpoint was sent or abandoned
//
// Two buffers at most are out at once: the checkpoint being sent and the one being captured.

import { ColoError, errorCodes } from '../base/errors.ts';
import { discardContents, hugeBuffer } from './libc.ts';
import { captureBuffersMax, capturePagesBytesFirst, capturePagesBytesMax, captureShrinkAfter } from './limits.ts';

export class CapturePool {
  #free: Buffer | undefined;
  #lent = 0;
  /** The largest size that was asked for since the last turn of captureShrinkAfter requests, and in the turn before. */
  #largest = 0;
  #largestBefore = 0;
  #requests = 0;

  /** Makes the next take() of up to `bytes` free of allocation. Beyond the limits it does nothing: take() refuses. */
  async reserve(bytes: number): Promise<void> {
    if (bytes > capturePagesBytesMax || this.#lent === captureBuffersMax) return;
    this.#note(bytes);
    const wanted = Math.max(this.#largest, this.#largestBefore);
    const length = this.#free?.length ?? 0;
    if (length >= bytes && length <= wanted) return;
    const unfit = this.#free;
    this.#free = undefined;
    if (unfit !== undefined) discardContents(unfit);
    this.#keep(await hugeBuffer(length < bytes ? sizeFor(bytes) : wanted));
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
    this.#largest = Math.max(this.#largest, sizeFor(bytes));
    // More was written since reserve() than it left room for: slower, but right.
    return kept !== undefined && kept.length >= bytes ? kept : Buffer.allocUnsafeSlow(sizeFor(bytes));
  }

  /** Takes back a buffer of take(). The larger one is kept: it fits every request of the smaller. */
  give(buffer: Buffer): void {
    this.#lent--;
    this.#keep(buffer);
  }

  #keep(buffer: Buffer): void {
    const other = this.#free;
    const isSmaller = other !== undefined && other.length > buffer.length;
    this.#free = isSmaller ? other : buffer;
    const dropped = isSmaller ? buffer : other;
    if (dropped !== undefined) discardContents(dropped);
  }

  #note(bytes: number): void {
    if (this.#requests++ % captureShrinkAfter === 0) {
      this.#largestBefore = this.#largest;
      this.#largest = 0;
    }
    this.#largest = Math.max(this.#largest, sizeFor(bytes));
  }
}

function sizeFor(bytes: number): number {
  const steps = Math.max(1, Math.ceil(bytes / capturePagesBytesFirst));
  return Math.min(capturePagesBytesMax, steps * capturePagesBytesFirst);
}
