// Reading and writing the fields of a payload, big-endian. The reader never throws: past the end it returns zeros and
// empty views and remembers that it failed, so a parser reads all its fields and asks once.

import { assert } from '../base/assert.ts';

export class PayloadReader {
  /** A field lay past the end, or a number was not one that we can hold. */
  failed = false;
  private readonly payload: Uint8Array;
  private readonly view: DataView;
  private at = 0;

  constructor(payload: Uint8Array) {
    this.payload = payload;
    this.view = new DataView(payload.buffer, payload.byteOffset, payload.length);
  }

  /** Every field was there and nothing is left. */
  get done(): boolean {
    return !this.failed && this.at === this.payload.length;
  }

  u8(): number {
    const at = this.take(1);
    return at < 0 ? 0 : this.view.getUint8(at);
  }

  u16(): number {
    const at = this.take(2);
    return at < 0 ? 0 : this.view.getUint16(at);
  }

  u32(): number {
    const at = this.take(4);
    return at < 0 ? 0 : this.view.getUint32(at);
  }

  u64(): number {
    const at = this.take(8);
    const value = at < 0 ? 0 : Number(this.view.getBigUint64(at));
    if (Number.isSafeInteger(value)) return value;
    this.failed = true;
    return 0;
  }

  f64(): number {
    const at = this.take(8);
    const value = at < 0 ? 0 : this.view.getFloat64(at);
    if (Number.isFinite(value)) return value;
    this.failed = true;
    return 0;
  }

  raw(length: number): Uint8Array {
    const at = this.take(length);
    return at < 0 ? new Uint8Array(0) : this.payload.subarray(at, at + length);
  }

  text(length: number): string {
    const bytes = this.raw(length);
    return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('utf8');
  }

  rest(): Uint8Array {
    return this.raw(this.payload.length - this.at);
  }

  private take(length: number): number {
    if (this.failed || this.at + length > this.payload.length) {
      this.failed = true;
      return -1;
    }
    const at = this.at;
    this.at += length;
    return at;
  }
}

export class PayloadWriter {
  readonly bytes: Uint8Array;
  private readonly view: DataView;
  private at = 0;

  /** `length`: of the whole payload; every byte of it is to be written. */
  constructor(length: number) {
    this.bytes = new Uint8Array(length);
    this.view = new DataView(this.bytes.buffer);
  }

  u8(value: number): this {
    assertFits(value, 8);
    this.view.setUint8(this.advance(1), value);
    return this;
  }

  u16(value: number): this {
    assertFits(value, 16);
    this.view.setUint16(this.advance(2), value);
    return this;
  }

  u32(value: number): this {
    assertFits(value, 32);
    this.view.setUint32(this.advance(4), value);
    return this;
  }

  u64(value: number): this {
    assert(Number.isSafeInteger(value) && value >= 0, `${value} is no count`);
    this.view.setBigUint64(this.advance(8), BigInt(value));
    return this;
  }

  f64(value: number): this {
    this.view.setFloat64(this.advance(8), value);
    return this;
  }

  raw(value: Uint8Array): this {
    this.bytes.set(value, this.advance(value.length));
    return this;
  }

  private advance(length: number): number {
    const at = this.at;
    this.at += length;
    return at;
  }
}

/** What does not fit would travel as another number. */
function assertFits(value: number, bits: number): void {
  assert(Number.isInteger(value) && value >= 0 && value < 2 ** bits, `${value} does not fit into ${bits} bits`);
}
