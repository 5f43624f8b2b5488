// Cuts a byte stream into Ethernet frames. The format is that of QEMU's `-netdev stream`:
//
//   offset  bytes  field
//   0       4      length of the frame, big-endian
//   4       n      the Ethernet frame
//
// Frames that lie whole in a chunk are handed out as views of it, without copying; only a frame that is split between
// chunks is gathered. A length beyond the limit ends the stream: there is no way to find the next frame.

import { frameBytesMax } from './limits.ts';

const headerBytes = 4;

export class FrameParser {
  private rest: Uint8Array = new Uint8Array(0);

  /** Hands every complete frame to `visit` (valid during the call); false when the stream is not frames. */
  push(chunk: Uint8Array, visit: (frame: Uint8Array) => void): boolean {
    const bytes = this.rest.length === 0 ? chunk : Buffer.concat([this.rest, chunk]);
    let at = 0;
    while (bytes.length - at >= headerBytes) {
      const length =
        (((bytes[at] ?? 0) << 24) |
          ((bytes[at + 1] ?? 0) << 16) |
          ((bytes[at + 2] ?? 0) << 8) |
          (bytes[at + 3] ?? 0)) >>>
        0;
      if (length > frameBytesMax) return false;
      if (bytes.length - at - headerBytes < length) break;
      visit(bytes.subarray(at + headerBytes, at + headerBytes + length));
      at += headerBytes + length;
    }
    this.rest = at === bytes.length ? new Uint8Array(0) : Uint8Array.from(bytes.subarray(at));
    return true;
  }

  /** True when the stream stands between two frames. */
  get aligned(): boolean {
    return this.rest.length === 0;
  }
}
