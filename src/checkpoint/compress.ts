// Compression of page batches: LZ4 from the system's liblz4, off the event loop; else node's deflate, else none.
//
// LZ4 because it costs less than the network or the copy it saves (1-2 ms for 1 MiB of mixed pages, 0.1 for zeros), and
// because a batch that does not compress is noticed early and travels raw. Decoding is synchronous and about as fast as
// copying; liblz4's decoder is safe against hostile input, and its result must have exactly the announced size.

import { constants, deflateRaw, inflateRawSync } from 'node:zlib';
import koffi from 'koffi';
import { compressInlineBytesMax } from './limits.ts';
import { type Encoding, encodings } from './message.ts';

export interface Compressor {
  readonly name: 'lz4' | 'deflate' | 'none';
  readonly encoding: Encoding;
  /** Fresh bytes, or undefined when `raw` does not get smaller. `raw` must not change until this resolves. */
  compress(raw: Uint8Array): Promise<Uint8Array | undefined>;
  /** Decodes into the start of `target`; false when the data does not give exactly `rawBytes`, or cannot be decoded. */
  decode(encoding: Encoding, data: Uint8Array, target: Uint8Array, rawBytes: number): boolean;
}

interface Lz4 {
  compress(raw: Uint8Array, target: Uint8Array): number;
  compressAsync(raw: Uint8Array, target: Uint8Array): Promise<number>;
  decode(data: Uint8Array, target: Uint8Array, rawBytes: number): number;
}

function loadLz4(): Lz4 | undefined {
  try {
    const library = koffi.load('liblz4.so.1');
    const compress = library.func('int LZ4_compress_default(const void *source, void *target, int size, int capacity)');
    const decode = library.func('int LZ4_decompress_safe(const void *source, void *target, int size, int capacity)');
    return {
      compress: (raw, target) => compress(raw, target, raw.length, target.length) as number,
      compressAsync: (raw, target) =>
        new Promise((resolve, reject) => {
          compress.async(raw, target, raw.length, target.length, (error: unknown, bytes: number) => {
            if (error instanceof Error) reject(error);
            else resolve(bytes);
          });
        }),
      decode: (data, target, rawBytes) => decode(data, target, data.length, rawBytes) as number,
    };
  } catch {
    return undefined;
  }
}

/**
 * The best compressor of this host, or the one that `only` names. `fellBack` is called once with a sentence for the
 * log when LZ4 is missing.
 */
export function openCompressor(
  options: { only?: 'lz4' | 'deflate' | 'none'; fellBack?(text: string): void } = {},
): Compressor {
  const lz4 = loadLz4();
  const wanted = options.only ?? 'lz4';
  if (wanted === 'lz4' && lz4 !== undefined) return new Lz4Compressor(lz4);
  if (wanted === 'lz4') {
    options.fellBack?.(
      'liblz4.so.1 is missing: checkpoints are compressed with deflate, which is slower. Install liblz4-1.',
    );
  }
  return wanted === 'none' ? new PlainCompressor(lz4) : new DeflateCompressor(lz4);
}

/** A result must save a sixteenth, or the time to decode it is not worth it. */
const worthwhile = (rawBytes: number): number => rawBytes - (rawBytes >> 4);

function decodeWith(
  lz4: Lz4 | undefined,
  source: { encoding: Encoding; data: Uint8Array },
  target: Uint8Array,
): boolean {
  switch (source.encoding) {
    case encodings.raw:
      if (source.data.length !== target.length) return false;
      target.set(source.data);
      return true;
    case encodings.lz4:
      return lz4 !== undefined && lz4.decode(source.data, target, target.length) === target.length;
    case encodings.deflate:
      return inflateInto(source.data, target);
  }
}

function inflateInto(data: Uint8Array, target: Uint8Array): boolean {
  try {
    const raw = inflateRawSync(data, { maxOutputLength: Math.max(1, target.length) });
    if (raw.length !== target.length) return false;
    target.set(raw);
    return true;
  } catch {
    return false;
  }
}

class Lz4Compressor implements Compressor {
  readonly name = 'lz4';
  readonly encoding = encodings.lz4;
  private readonly lz4: Lz4;
  /** A buffer for results that is not in use: fresh memory costs a page fault for every 4 KiB. */
  private spare: Buffer | undefined;

  constructor(lz4: Lz4) {
    this.lz4 = lz4;
  }

  async compress(raw: Uint8Array): Promise<Uint8Array | undefined> {
    // LZ4 returns 0 when the result would not fit: the target is as small as a worthwhile result.
    const size = worthwhile(raw.length);
    const buffer = this.spare !== undefined && this.spare.length >= size ? this.spare : Buffer.allocUnsafeSlow(size);
    this.spare = undefined;
    const target = buffer.subarray(0, size);
    const inline = raw.length <= compressInlineBytesMax;
    const bytes = inline ? this.lz4.compress(raw, target) : await this.lz4.compressAsync(raw, target);
    this.spare = buffer;
    return bytes <= 0 ? undefined : Buffer.from(target.subarray(0, bytes));
  }

  decode(encoding: Encoding, data: Uint8Array, target: Uint8Array, rawBytes: number): boolean {
    return decodeWith(this.lz4, { encoding, data }, target.subarray(0, rawBytes));
  }
}

class DeflateCompressor implements Compressor {
  readonly name = 'deflate';
  readonly encoding = encodings.deflate;
  private readonly lz4: Lz4 | undefined;

  constructor(lz4: Lz4 | undefined) {
    this.lz4 = lz4;
  }

  compress(raw: Uint8Array): Promise<Uint8Array | undefined> {
    return new Promise((resolve, reject) => {
      deflateRaw(raw, { level: constants.Z_BEST_SPEED }, (error, bytes) => {
        if (error !== null) reject(error);
        else resolve(bytes.length <= worthwhile(raw.length) ? bytes : undefined);
      });
    });
  }

  decode(encoding: Encoding, data: Uint8Array, target: Uint8Array, rawBytes: number): boolean {
    return decodeWith(this.lz4, { encoding, data }, target.subarray(0, rawBytes));
  }
}

class PlainCompressor implements Compressor {
  readonly name = 'none';
  readonly encoding = encodings.raw;
  private readonly lz4: Lz4 | undefined;

  constructor(lz4: Lz4 | undefined) {
    this.lz4 = lz4;
  }

  compress(): Promise<Uint8Array | undefined> {
    return Promise.resolve(undefined);
  }

  decode(encoding: Encoding, data: Uint8Array, target: Uint8Array, rawBytes: number): boolean {
    return decodeWith(this.lz4, { encoding, data }, target.subarray(0, rawBytes));
  }
}
