// The IPv4 addresses of a frame, as numbers: all that the simulated guest and its clients speak.

import { read32 } from '../../src/packet/checksum.ts';
import type { FrameView } from '../../src/packet/frame-view.ts';

const sourceAt = 12;
const targetAt = 16;

export function sourceIp(view: FrameView): number {
  return read32(view.frame, view.ipAt + sourceAt) >>> 0;
}

export function targetIp(view: FrameView): number {
  return read32(view.frame, view.ipAt + targetAt) >>> 0;
}
