// Between a guest's sequence space and the client space. Checksums are updated incrementally.
//
//    guest -> client    sequence += delta
//    client -> guest    ack -= delta, and both edges of every SACK block
//
// The other direction's numbers (the client's sequence, the guest's ack) are the same in both spaces.

import { read32, replace32 } from '../packet/checksum.ts';
import type { FrameView } from '../packet/frame-view.ts';
import { forEachSackEdge, tcp } from '../packet/tcp.ts';

/** A copy of the guest's frame in client space. */
export function toClientSpace(view: FrameView, delta: number): Uint8Array {
  const frame = Buffer.from(view.frame);
  const at = view.transportAt;
  replace32(frame, at + tcp.checksum, at, at + tcp.sequence, (view.sequence + delta) >>> 0);
  return frame;
}

/** A copy of the client's frame in the guest's space. */
export function toGuestSpace(view: FrameView, delta: number): Uint8Array {
  const frame = Buffer.from(view.frame);
  const at = view.transportAt;
  if (!view.hasAck) return frame;
  replace32(frame, at + tcp.checksum, at, at + tcp.ack, (view.ack - delta) >>> 0);
  forEachSackEdge(frame, at, (edge) => {
    replace32(frame, at + tcp.checksum, at, edge, (read32(frame, edge) - delta) >>> 0);
  });
  return frame;
}
