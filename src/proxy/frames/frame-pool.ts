// Buffers for frames that must be kept beyond the call that brought them. Most frames have one of a few lengths, so
// buffers of exactly the right length are used again, and keeping a frame allocates nothing once traffic has settled.
//
// A buffer may be given back only when nothing refers to it any more. One that is not given back is simply collected.

import { proxyLimits } from '../limits.ts';

export class FramePool {
  /** Free buffers by their length. */
  private readonly free: (Buffer[] | undefined)[] = [];
  private freeBytes = 0;

  /** A copy of bytes [from, to) of `bytes`. */
  copy(bytes: Uint8Array, from: number, to: number): Buffer {
    const length = to - from;
    const buffer = this.take(length);
    if (length > copyByLoopBytes) {
      if (Buffer.isBuffer(bytes)) bytes.copy(buffer, 0, from, to);
      else buffer.set(bytes.subarray(from, to));
      return buffer;
    }
    for (let at = 0; at < length; at += 1) buffer[at] = bytes[from + at] as number;
    return buffer;
  }

  private take(length: number): Buffer {
    const stack = this.free[length];
    const buffer = stack?.pop();
    if (buffer === undefined) return Buffer.allocUnsafeSlow(length);
    this.freeBytes -= length;
    return buffer;
  }

  giveBack(buffer: Buffer): void {
    const { length } = buffer;
    if (length > proxyLimits.frameBytesMax || this.freeBytes + length > proxyLimits.pooledBytesMax) return;
    while (this.free.length <= length) this.free.push(undefined);
    const stack = this.free[length];
    if (stack === undefined) this.free[length] = [buffer];
    else stack.push(buffer);
    this.freeBytes += length;
  }
}

/** Below this a loop is faster than the call of a native copy. */
const copyByLoopBytes = 48;
