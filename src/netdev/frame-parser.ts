// Cuts a byte stream into Ethernet frames. The format is that of QEMU's `-netdev stream`:
//
//   offset  bytes  field
//   0       4      length of the frame, big-endian
//   4       n      the Ethernet frame
//
// Frames that lie whole in a chunk are handed out as views of it; only the bytes of a frame that is split between
// chunks are copied, into a buffer that is used again. A length beyond the limit ends the stream: there is no way to
// find the next frame.

import { frameBytesMax } from './limits.ts';

const headerBytes = 4;
const gatheredBytesAtFirst = 2048;

export class FrameParser {
  /** The beginning of a frame, header and all, whose rest has not come yet. */
  private gathered = Buffer.allocUnsafeSlow(gatheredBytesAtFirst);
  private gatheredBytes = 0;

  /** Hands every complete frame to `visit` (valid during the call); false when the stream is not frames. */
  push(chunk: Uint8Array, visit: (frame: Uint8Array) => void): boolean {
    let at = 0;
    if (this.gatheredBytes > 0) {
      at = this.complete(chunk, visit);
      if (at < 0) return false;
      if (this.gatheredBytes > 0) return true;
    }
    const end = chunk.length;
    while (end - at >= headerBytes) {
      const length = lengthAt(chunk, at);
      if (length > frameBytesMax) return false;
      const next = at + headerBytes + length;
      if (next > end) break;
      visit(chunk.subarray(at + headerBytes, next));
      at = next;
    }
    if (at < end) this.gather(chunk, at, end);
    return true;
  }

  /** True when the stream stands between two frames. */
  get aligned(): boolean {
    return this.gatheredBytes === 0;
  }

  /** Goes on with the frame that is being gathered; how many bytes of the chunk that took, -1 when it is no frame. */
  private complete(chunk: Uint8Array, visit: (frame: Uint8Array) => void): number {
    let at = 0;
    if (this.gatheredBytes < headerBytes) {
      at = Math.min(headerBytes - this.gatheredBytes, chunk.length);
      this.gather(chunk, 0, at);
      if (this.gatheredBytes < headerBytes) return at;
    }
    const length = lengthAt(this.gathered, 0);
    if (length > frameBytesMax) return -1;
    const end = Math.min(at + headerBytes + length - this.gatheredBytes, chunk.length);
    this.gather(chunk, at, end);
    if (this.gatheredBytes < headerBytes + length) return end;
    this.gatheredBytes = 0;
    visit(this.gathered.subarray(headerBytes, headerBytes + length));
    return end;
  }

  private gather(chunk: Uint8Array, from: number, to: number): void {
    const bytes = this.gatheredBytes + to - from;
    if (bytes > this.gathered.length) {
      const larger = Buffer.allocUnsafeSlow(Math.max(bytes, 2 * this.gathered.length));
      this.gathered.copy(larger, 0, 0, this.gatheredBytes);
      this.gathered = larger;
    }
    this.gathered.set(from === 0 && to === chunk.length ? chunk : chunk.subarray(from, to), this.gatheredBytes);
    this.gatheredBytes = bytes;
  }
}

function lengthAt(bytes: Uint8Array, at: number): number {
  const high = ((bytes[at] as number) << 8) | (bytes[at + 1] as number);
  const low = ((bytes[at + 2] as number) << 8) | (bytes[at + 3] as number);
  return high * 65_536 + low;
}
