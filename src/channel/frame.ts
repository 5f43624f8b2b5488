// One message on the link, and the decoder of a stream of them. Big-endian.
//
//    0        2        3        4              8              12             16
//    ┌────────┬────────┬────────┬──────────────┬──────────────┬──────────────┬─────────────
//    │ magic  │version │ type   │ length       │ sequence     │ crc32        │ payload ...
//    │ 0xC010 │ 1      │ not 0  │ of payload   │ from 1       │              │
//    └────────┴────────┴────────┴──────────────┴──────────────┴──────────────┴─────────────
//
// The sequence counts the messages of one connection and direction, so that a lost, repeated or reordered one is seen;
// it wraps after 2^32 messages. The checksum covers the first twelve bytes and the payload. It guards against faults of
// ours and of the path, not against an attacker: that is the work of TLS below.
//
// The decoder hands a message that lies whole in a received chunk out as a view of that chunk; only a message that
// spans chunks is put together in a buffer, which is reused. A length that was damaged but stays within the limit makes
// the decoder wait for bytes of the next messages; their checksum, the beats' silence or the end of the stream ends
// that.

import { crc32 } from 'node:zlib';
import { messageBytesMax } from './limits.ts';

export const headerBytes = 16;
export const frameMagic = 0xc010;
export const frameVersion = 1;

const versionOffset = 2;
const typeOffset = 3;
const lengthOffset = 4;
const sequenceOffset = 8;
const checksumOffset = 12;

/** Types that the link itself uses; its users number their messages from 1 to `lastUserType`. */
export const linkTypes = { hello: 255, refuse: 254, bye: 253 } as const;
export const lastUserType = 239;

export type RefusalKind =
  | 'magic'
  | 'version'
  | 'type'
  | 'length'
  | 'sequence'
  | 'checksum'
  | 'hello'
  | 'identity'
  | 'timeout'
  | 'end';

/** Why a peer's bytes were not accepted: data, because a peer's bytes are no error of ours. */
export interface Refusal {
  kind: RefusalKind;
  text: string;
}

/** Writes the header of a message whose payload is `parts`, checksum included. */
export function writeHeader(
  target: Buffer,
  at: number,
  message: { type: number; length: number; sequence: number; parts: readonly Uint8Array[] },
): void {
  target.writeUInt16BE(frameMagic, at);
  target[at + versionOffset] = frameVersion;
  target[at + typeOffset] = message.type;
  target.writeUInt32BE(message.length, at + lengthOffset);
  target.writeUInt32BE(message.sequence, at + sequenceOffset);
  let checksum = crc32(target.subarray(at, at + checksumOffset));
  for (const part of message.parts) checksum = crc32(part, checksum);
  target.writeUInt32BE(checksum, at + checksumOffset);
}

/** The sequence number after `sequence`. */
export function nextSequence(sequence: number): number {
  return (sequence + 1) >>> 0;
}

export class FrameDecoder {
  /** Bytes of the last chunk that were used; smaller than the chunk only after a refusal or when `visit` said stop. */
  consumed = 0;
  payloadBytesMax: number;
  private sequence = 1;
  /** A message of which only the beginning has arrived: `pending` bytes at the start of `assembly`. */
  private assembly: Buffer = Buffer.allocUnsafe(4096);
  private pending = 0;

  constructor(payloadBytesMax: number = messageBytesMax) {
    this.payloadBytesMax = payloadBytesMax;
  }

  /** True between two messages: an end of the stream here cuts none in two. */
  get atBoundary(): boolean {
    return this.pending === 0;
  }

  /** Decodes a chunk; `visit` gets each whole message, its payload valid during the call, and returns false to stop. */
  push(chunk: Buffer, visit: (type: number, payload: Buffer) => boolean): Refusal | undefined {
    this.consumed = 0;
    while (this.consumed < chunk.length) {
      const whole = this.pending === 0 ? this.inPlace(chunk) : this.assembled(chunk);
      if (whole === undefined) return undefined;
      if (!Buffer.isBuffer(whole)) return whole;
      const refusal = this.checkChecksum(whole);
      if (refusal !== undefined) return refusal;
      this.sequence = nextSequence(this.sequence);
      if (!visit(whole[typeOffset] ?? 0, whole.subarray(headerBytes))) return undefined;
    }
    return undefined;
  }

  /** The next message as a view of the chunk; or takes the beginning of one that is not whole. */
  private inPlace(chunk: Buffer): Buffer | Refusal | undefined {
    const start = this.consumed;
    const available = chunk.length - start;
    if (available >= headerBytes) {
      const refusal = this.checkHeader(chunk, start);
      if (refusal !== undefined) return refusal;
      const frameBytes = headerBytes + chunk.readUInt32BE(start + lengthOffset);
      if (available >= frameBytes) {
        this.consumed = start + frameBytes;
        return chunk.subarray(start, start + frameBytes);
      }
      this.reserve(frameBytes);
    }
    this.take(chunk, available);
    return undefined;
  }

  /** Goes on with a message that began in an earlier chunk. */
  private assembled(chunk: Buffer): Buffer | Refusal | undefined {
    if (this.pending < headerBytes) {
      this.take(chunk, headerBytes - this.pending);
      if (this.pending < headerBytes) return undefined;
      const refusal = this.checkHeader(this.assembly, 0);
      if (refusal !== undefined) return refusal;
    }
    const frameBytes = headerBytes + this.assembly.readUInt32BE(lengthOffset);
    this.reserve(frameBytes);
    this.take(chunk, frameBytes - this.pending);
    if (this.pending < frameBytes) return undefined;
    this.pending = 0;
    return this.assembly.subarray(0, frameBytes);
  }

  /** Moves at most `wanted` bytes of the chunk behind what is pending. */
  private take(chunk: Buffer, wanted: number): void {
    const end = Math.min(chunk.length, this.consumed + wanted);
    this.pending += chunk.copy(this.assembly, this.pending, this.consumed, end);
    this.consumed = end;
  }

  /** Makes the assembly hold a frame of this size; the header was checked, so the size is within the limit. */
  private reserve(frameBytes: number): void {
    if (this.assembly.length >= frameBytes) return;
    const grown = Buffer.allocUnsafeSlow(Math.min(headerBytes + this.payloadBytesMax, Math.max(frameBytes, 65536)));
    this.assembly.copy(grown, 0, 0, this.pending);
    this.assembly = grown;
  }

  private checkHeader(frame: Buffer, at: number): Refusal | undefined {
    const magic = frame.readUInt16BE(at);
    if (magic !== frameMagic) return { kind: 'magic', text: `begins with 0x${magic.toString(16)}, which is not COLO` };
    const version = frame[at + versionOffset];
    if (version !== frameVersion)
      return { kind: 'version', text: `is of frame version ${version}, not ${frameVersion}` };
    if (frame[at + typeOffset] === 0) return { kind: 'type', text: 'has type 0, which is never valid' };
    const length = frame.readUInt32BE(at + lengthOffset);
    if (length > this.payloadBytesMax) {
      return { kind: 'length', text: `announces ${length} bytes, more than the ${this.payloadBytesMax} allowed here` };
    }
    const sequence = frame.readUInt32BE(at + sequenceOffset);
    if (sequence === this.sequence) return undefined;
    return { kind: 'sequence', text: `has number ${sequence} where ${this.sequence} was due` };
  }

  private checkChecksum(frame: Buffer): Refusal | undefined {
    const header = crc32(frame.subarray(0, checksumOffset));
    const checksum = frame.length === headerBytes ? header : crc32(frame.subarray(headerBytes), header);
    if (checksum === frame.readUInt32BE(checksumOffset)) return undefined;
    return { kind: 'checksum', text: 'has a wrong checksum: it was damaged on the way' };
  }
}
