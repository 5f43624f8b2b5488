// Frames as they travel in a checkpoint: 32-bit length, bytes, and so on.

import { read32, write32 } from '../../packet/checksum.ts';

const lengthBytes = 4;

export function encodedFrameBytes(frame: Uint8Array): number {
  return lengthBytes + frame.length;
}

export function encodeFrames(frames: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(frames.reduce((sum, frame) => sum + encodedFrameBytes(frame), 0));
  let at = 0;
  for (const frame of frames) {
    write32(bytes, at, frame.length);
    bytes.set(frame, at + lengthBytes);
    at += encodedFrameBytes(frame);
  }
  return bytes;
}

/** Whether the bytes are whole frames, from the first to the last. */
export function areFrames(bytes: Uint8Array): boolean {
  let at = 0;
  while (at + 4 <= bytes.length) at += 4 + read32(bytes, at);
  return at === bytes.length;
}

/** What is no whole frame at the end is ignored. */
export function decodeFrames(bytes: Uint8Array): Uint8Array[] {
  const frames: Uint8Array[] = [];
  for (let at = 0; at + 4 <= bytes.length; ) {
    const end = at + 4 + read32(bytes, at);
    if (end > bytes.length) break;
    frames.push(new Uint8Array(bytes.subarray(at + 4, end)));
    at = end;
  }
  return frames;
}
