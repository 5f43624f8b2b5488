// A client of QEMU's own NBD server: which blocks of a disk a dirty bitmap names, and what is in them. One connection,
// one request at a time. Its server is a QEMU, which holds guest-controlled state: what it answers is checked, and what
// is not NBD or beyond the limits ends the connection with its reason.
//
//    STRUCTURED_REPLY ─► SET_META_CONTEXT "qemu:dirty-bitmap:NAME" ─► GO ─► BLOCK_STATUS, READ ... ─► close
//
//    structured reply   magic u32 │ flags u16 (1: the last) │ type u16 │ cookie u64 │ length u32 │ payload
//       OFFSET_DATA     offset u64 │ data          OFFSET_HOLE   offset u64 │ length u32
//       BLOCK_STATUS    context u32 │ (length u32, flags u32) ...        errors: error u32 │ ...

import { createConnection, type Socket } from 'node:net';
import { ColoError, errorCodes } from '../base/errors.ts';
import { replyBytesMax, statusBytesMax } from './limits.ts';
import * as nbd from './protocol.ts';

export interface Range {
  start: number;
  end: number;
}

const contextPrefix = 'qemu:dirty-bitmap:';
const dirty = 1;

export class NbdClient {
  readonly sizeBytes: number;
  private readonly stream: ByteStream;
  private cookie = 0n;

  private constructor(stream: ByteStream, sizeBytes: number) {
    this.stream = stream;
    this.sizeBytes = sizeBytes;
  }

  /** Connects to an export whose dirty bitmap `bitmap` can be asked for. */
  static async connect(path: string, options: { exportName: string; bitmap: string }): Promise<NbdClient> {
    const stream = new ByteStream(createConnection(path));
    try {
      return new NbdClient(stream, await shakeHands(stream, options));
    } catch (error) {
      stream.end(error);
      throw error;
    }
  }

  /** The blocks that the bitmap names, ascending. */
  async *changed(): AsyncGenerator<Range> {
    for (let at = 0; at < this.sizeBytes; ) {
      const length = Math.min(statusBytesMax, this.sizeBytes - at);
      this.ask(nbd.commands.blockStatus, at, length);
      let end = at;
      for await (const { type, payload } of this.reply()) {
        if (type !== nbd.replyTypes.blockStatus || payload.length % 8 !== 4) throw broken('an odd block status');
        for (let place = 4; place < payload.length; place += 8) {
          const start = end;
          end = Math.min(this.sizeBytes, start + payload.readUInt32BE(place));
          if ((payload.readUInt32BE(place + 4) & dirty) !== 0) yield { start, end };
        }
      }
      if (end === at) throw broken('no progress');
      at = end;
    }
  }

  /** What is there; undefined where all of it reads as zeroes. */
  async read(offset: number, length: number): Promise<Buffer | undefined> {
    const data = Buffer.alloc(length);
    let isHole = true;
    let got = 0;
    this.ask(nbd.commands.read, offset, length);
    for await (const { type, payload } of this.reply()) {
      if (payload.length < 8) throw broken('a reply that is too short');
      const at = Number(payload.readBigUInt64BE(0)) - offset;
      const isData = type === nbd.replyTypes.offsetData;
      if (!isData && (type !== nbd.replyTypes.offsetHole || payload.length !== 12))
        throw broken(`a reply of type ${type}`);
      const bytes = isData ? payload.length - 8 : payload.readUInt32BE(8);
      if (at < 0 || at + bytes > length) throw broken('data that was not asked for');
      if (isData) {
        payload.copy(data, at, 8);
        isHole = false;
      }
      got += bytes;
    }
    if (got !== length) throw broken('less data than was asked for');
    return isHole ? undefined : data;
  }

  close(): void {
    this.stream.end(broken('it was closed'));
  }

  private ask(command: number, offset: number, length: number): void {
    this.cookie += 1n;
    const head = Buffer.alloc(nbd.requestHeadBytes);
    head.writeUInt32BE(nbd.magics.request, 0);
    head.writeUInt16BE(command, 6);
    head.writeBigUInt64BE(this.cookie, 8);
    head.writeBigUInt64BE(BigInt(offset), 16);
    head.writeUInt32BE(length, 24);
    this.stream.write(head);
  }

  /** The chunks of the answer to the request that was sent last. */
  private async *reply(): AsyncGenerator<{ type: number; payload: Buffer }> {
    for (let isLast = false; !isLast; ) {
      const head = await this.stream.take(20);
      if (head.readUInt32BE(0) !== nbd.magics.structuredReply) throw broken('no structured reply');
      if (head.readBigUInt64BE(8) !== this.cookie) throw broken('an answer to something else');
      isLast = (head.readUInt16BE(4) & 1) !== 0;
      const type = head.readUInt16BE(6);
      const payload = await this.stream.take(head.readUInt32BE(16));
      if (type >= nbd.replyTypes.firstError)
        throw broken(`error ${payload.length < 4 ? '?' : payload.readUInt32BE(0)}`);
      if (type !== nbd.replyTypes.none) yield { type, payload };
    }
  }
}

async function shakeHands(stream: ByteStream, options: { exportName: string; bitmap: string }): Promise<number> {
  const greeting = await stream.take(18);
  if (greeting.readBigUInt64BE(0) !== nbd.magics.greeting || greeting.readBigUInt64BE(8) !== nbd.magics.option)
    throw broken('no greeting');
  const flags = Buffer.alloc(4);
  flags.writeUInt32BE(nbd.handshakeFlags.fixedNewstyle | nbd.handshakeFlags.noZeroes, 0);
  stream.write(flags);
  const name = text(options.exportName);
  await optionOf(stream, nbd.options.structuredReply, []);
  const context = text(contextPrefix + options.bitmap);
  const contexts = await optionOf(stream, nbd.options.setMetaContext, [...name, number(1), ...context]);
  if (!contexts.some(({ reply }) => reply === nbd.optionReplies.metaContext))
    throw broken(`no bitmap ${options.bitmap}`);
  const infos = await optionOf(stream, nbd.options.go, [...name, Buffer.alloc(2)]);
  const info = infos.find(({ data }) => data.length >= 12 && data.readUInt16BE(0) === nbd.infoTypes.export);
  if (info === undefined) throw broken('no size');
  return Number(info.data.readBigUInt64BE(2));
}

/** Asks for an option; returns the replies before its acknowledgement. */
async function optionOf(stream: ByteStream, option: number, parts: Buffer[]) {
  const data = Buffer.concat(parts);
  const head = Buffer.alloc(nbd.optionHeadBytes);
  head.writeBigUInt64BE(nbd.magics.option, 0);
  head.writeUInt32BE(option, 8);
  head.writeUInt32BE(data.length, 12);
  stream.write(Buffer.concat([head, data]));
  const replies: { reply: number; data: Buffer }[] = [];
  for (;;) {
    const answer = await stream.take(20);
    if (answer.readBigUInt64BE(0) !== nbd.magics.optionReply || answer.readUInt32BE(8) !== option)
      throw broken('no answer to an option');
    const reply = answer.readUInt32BE(12);
    const payload = await stream.take(answer.readUInt32BE(16));
    if (reply === nbd.optionReplies.ack) return replies;
    if (reply >= nbd.optionReplies.unsupported || replies.length > 64) throw broken(`option ${option} was refused`);
    replies.push({ reply, data: payload });
  }
}

function number(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value, 0);
  return bytes;
}

function text(value: string): Buffer[] {
  const bytes = Buffer.from(value);
  return [number(bytes.length), bytes];
}

function broken(what: string): ColoError {
  return new ColoError(errorCodes.qemu, `QEMU's disk cannot be read over NBD: ${what}`);
}

/** The bytes of a socket, as many at a time as are asked for. */
class ByteStream {
  private readonly socket: Socket;
  private readonly chunks: Buffer[] = [];
  private bytes = 0;
  private failure: Error | undefined;
  private wake: () => void = () => undefined;

  constructor(socket: Socket) {
    this.socket = socket;
    socket.on('data', (chunk: Buffer) => {
      this.chunks.push(chunk);
      this.bytes += chunk.length;
      this.wake();
    });
    socket.on('error', (cause) => this.end(broken(cause.message)));
    socket.on('close', () => this.end(broken('the connection was closed')));
  }

  write(bytes: Buffer): void {
    this.socket.write(bytes);
  }

  async take(count: number): Promise<Buffer> {
    if (count > replyBytesMax) throw broken(`an answer of ${count} bytes`);
    while (this.bytes < count) {
      if (this.failure !== undefined) throw this.failure;
      await new Promise<void>((resolve) => {
        this.wake = resolve;
      });
    }
    const all = this.chunks.length === 1 ? (this.chunks[0] ?? Buffer.alloc(0)) : Buffer.concat(this.chunks);
    this.chunks.splice(0);
    this.bytes = all.length - count;
    if (this.bytes > 0) this.chunks.push(all.subarray(count));
    return all.subarray(0, count);
  }

  end(why: unknown): void {
    this.failure ??= why instanceof Error ? why : broken(String(why));
    this.socket.destroy();
    this.wake();
  }
}
