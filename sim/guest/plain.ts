// Plain data as bytes that depend on the values alone, for what a guest has in its registers. v8.serialize writes a
// number as an integer or as a double by how the property happens to be represented, which other seeds of the process
// have a say in: the length of a checkpoint, and with it all that follows, was then another one than for the same seed
// alone.
//
//    undefined, null, false, true    tag
//    number                          tag │ double, 8 bytes
//    string                          tag │ length u32 │ UTF-8
//    Uint8Array, Uint32Array         tag │ bytes u32 │ bytes
//    array                           tag │ count u32 │ values
//    object                          tag │ count u32 │ keys (strings without their tag) and values, in their order
//
// What stands at two places is written twice, and is two things when it is read.

const tags = {
  undefined: 0,
  null: 1,
  false: 2,
  true: 3,
  number: 4,
  string: 5,
  bytes: 6,
  words: 7,
  array: 8,
  object: 9,
};
const firstBytes = 4096;

export function serialize(value: unknown): Uint8Array {
  const writer = new Writer();
  writer.put(value);
  return writer.bytes.subarray(0, writer.at);
}

export function deserialize(bytes: Uint8Array): unknown {
  return new Reader(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)).take();
}

class Writer {
  bytes = Buffer.alloc(firstBytes);
  at = 0;

  put(value: unknown): void {
    if (typeof value === 'number') this.number(value);
    else if (typeof value === 'string') this.string(tags.string, value);
    else if (typeof value === 'boolean') this.tag(value ? tags.true : tags.false);
    else if (value === undefined) this.tag(tags.undefined);
    else if (value === null) this.tag(tags.null);
    else if (value instanceof Uint8Array) this.raw(tags.bytes, value);
    else if (value instanceof Uint32Array)
      this.raw(tags.words, new Uint8Array(value.buffer, value.byteOffset, value.byteLength));
    else if (Array.isArray(value)) {
      this.counted(tags.array, value.length);
      for (const one of value) this.put(one);
    } else if (typeof value === 'object') this.object(value);
    else throw new Error(`bug: a ${typeof value} is no plain data`);
  }

  private object(value: object): void {
    const keys = Object.keys(value);
    this.counted(tags.object, keys.length);
    for (const key of keys) {
      this.string(undefined, key);
      this.put(Reflect.get(value, key));
    }
  }

  private number(value: number): void {
    this.room(9);
    this.bytes[this.at] = tags.number;
    this.bytes.writeDoubleBE(value, this.at + 1);
    this.at += 9;
  }

  private string(tag: number | undefined, value: string): void {
    const bytes = Buffer.byteLength(value);
    this.counted(tag, bytes);
    this.room(bytes);
    this.at += this.bytes.write(value, this.at);
  }

  private raw(tag: number, value: Uint8Array): void {
    this.counted(tag, value.length);
    this.room(value.length);
    this.bytes.set(value, this.at);
    this.at += value.length;
  }

  private counted(tag: number | undefined, count: number): void {
    if (tag !== undefined) this.tag(tag);
    this.room(4);
    this.at = this.bytes.writeUInt32BE(count, this.at);
  }

  private tag(tag: number): void {
    this.room(1);
    this.bytes[this.at] = tag;
    this.at += 1;
  }

  private room(bytes: number): void {
    if (this.at + bytes <= this.bytes.length) return;
    const grown = Buffer.alloc(2 * (this.at + bytes));
    grown.set(this.bytes.subarray(0, this.at));
    this.bytes = grown;
  }
}

class Reader {
  private readonly bytes: Buffer;
  private at = 0;

  constructor(bytes: Buffer) {
    this.bytes = bytes;
  }

  take(): unknown {
    const tag = this.bytes[this.at];
    this.at += 1;
    switch (tag) {
      case tags.undefined:
        return undefined;
      case tags.null:
        return null;
      case tags.false:
      case tags.true:
        return tag === tags.true;
      case tags.number:
        this.at += 8;
        return this.bytes.readDoubleBE(this.at - 8);
      case tags.string:
        return this.raw().toString();
      case tags.bytes:
        return Uint8Array.from(this.raw());
      case tags.words:
        return new Uint32Array(Uint8Array.from(this.raw()).buffer);
      case tags.array:
        return Array.from({ length: this.count() }, () => this.take());
      case tags.object:
        return this.object();
      default:
        throw new Error(`bug: no plain data at ${this.at - 1}`);
    }
  }

  private object(): unknown {
    const object: Record<string, unknown> = {};
    for (let left = this.count(); left > 0; left -= 1) {
      const key = this.raw().toString();
      object[key] = this.take();
    }
    return object;
  }

  private raw(): Buffer {
    const length = this.count();
    this.at += length;
    return this.bytes.subarray(this.at - length, this.at);
  }

  private count(): number {
    this.at += 4;
    return this.bytes.readUInt32BE(this.at - 4);
  }
}
