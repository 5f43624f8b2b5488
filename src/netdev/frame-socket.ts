// A socket that carries Ethernet frames: between a node and its QEMU's network card, and between a node and the network
// it stands in. Frames sent in one turn of the event loop leave in one write.
//
// `drain` exists for the capture of a checkpoint: frames that the guest sent before it stopped are already in the
// socket, and must be told from those it sends after it goes on, so they are read at once, without the event loop.
//
// A node's way to the network asks `maySend` and writes in the same breath, past Node's own queue. Between a frame's release
// and its write the process may be stopped for as long as it likes, and somebody else may speak for the guest then: so
// nothing may lie in between. Only where the kernel takes no more does Node write, and then one frame, before it is asked
// again.
//
// What is to be written is gathered in a buffer that is handed to the kernel as it is and used again when it is written:
// a frame is copied once.

import { readSync, writeSync } from 'node:fs';
import type { Socket } from 'node:net';
import { socketDescriptor } from '../base/socket-queue.ts';
import { FrameParser } from './frame-parser.ts';
import { drainBytesMax, sendQueueBytesMax } from './limits.ts';

export interface FrameHandlers {
  /** A frame arrived; valid during the call. */
  frame(frame: Uint8Array): void;
  closed(): void;
  /** Asked before every write: false drops what waits to be written, and counts it. Without it everything is written. */
  maySend?(): boolean;
}

/** Bytes that the kernel took now: 0 when it has no room (the descriptor does not block), or when the peer is gone. */
type WriteNow = (descriptor: number, bytes: Buffer, length: number) => number;

const readBytes = 256 * 1024;
const outBytesAtFirst = 64 * 1024;
/** Written buffers kept for the next write, and the longest that is worth keeping. */
const sparesMax = 4;
const spareBytesMax = 512 * 1024;

export class FrameSocket {
  readonly counters = { framesIn: 0, bytesIn: 0, framesOut: 0, bytesOut: 0, dropped: 0, malformed: 0, withheld: 0 };
  private readonly socket: Socket;
  private readonly handlers: FrameHandlers;
  private readonly parser = new FrameParser();
  private out: Buffer = Buffer.allocUnsafeSlow(outBytesAtFirst);
  private outBytes = 0;
  private readonly spares: Buffer[] = [];
  private flushing = false;
  /** Node writes a frame that the kernel had no room for. */
  private isFrameOnWay = false;
  private open = true;
  private readonly drainBuffer = Buffer.allocUnsafe(readBytes);
  private readonly writeNow: WriteNow;

  /** `writeNow`: the kernel's write; the simulation has another one. */
  constructor(socket: Socket, handlers: FrameHandlers, writeNow: WriteNow = writeDescriptor) {
    this.socket = socket;
    this.handlers = handlers;
    this.writeNow = writeNow;
    socket.on('data', (chunk: Buffer) => this.take(chunk));
    socket.on('error', () => undefined);
    socket.on('close', () => this.onClose());
  }

  /** Queues a frame (copied); dropped and counted when the peer has not read for too long. */
  send(frame: Uint8Array): void {
    if (!this.open) return;
    if (this.socket.writableLength + this.outBytes > sendQueueBytesMax) {
      this.counters.dropped += 1;
      return;
    }
    this.reserve(4 + frame.length);
    const { out, outBytes: at } = this;
    const { length } = frame;
    out[at] = 0;
    out[at + 1] = length >>> 16;
    out[at + 2] = length >>> 8;
    out[at + 3] = length;
    out.set(frame, at + 4);
    this.outBytes = at + 4 + length;
    this.counters.framesOut += 1;
    this.counters.bytesOut += frame.length;
    if (this.flushing) return;
    this.flushing = true;
    queueMicrotask(() => this.flush());
  }

  /** Writes what is queued now. */
  flush(): void {
    this.flushing = false;
    if (this.outBytes === 0 || !this.open) return;
    if (this.handlers.maySend !== undefined) {
      this.flushIfAllowed();
      return;
    }
    const written = this.out;
    this.socket.write(written.subarray(0, this.outBytes), () => this.keep(written));
    this.out = this.spares.pop() ?? Buffer.allocUnsafeSlow(outBytesAtFirst);
    this.outBytes = 0;
  }

  private keep(written: Buffer): void {
    if (this.spares.length < sparesMax && written.length <= spareBytesMax) this.spares.push(written);
  }

  private flushIfAllowed(): void {
    const descriptor = socketDescriptor(this.socket);
    if (descriptor === undefined || this.isFrameOnWay) return;
    if (this.handlers.maySend?.() === false) {
      this.counters.withheld += 1;
      this.outBytes = 0;
      return;
    }
    const written = this.writeNow(descriptor, this.out, this.outBytes);
    if (written < this.outBytes) this.sendOneFrame(written);
    else this.outBytes = 0;
  }

  /** The kernel takes no more: the frame that it took in part, or the next one, goes out when there is room. */
  private sendOneFrame(written: number): void {
    let end = 0;
    while (end <= written) end += 4 + this.out.readUInt32BE(end);
    const rest = Buffer.from(this.out.subarray(written, end));
    this.out.copyWithin(0, end, this.outBytes);
    this.outBytes -= end;
    this.isFrameOnWay = true;
    this.socket.write(rest, () => {
      this.isFrameOnWay = false;
      this.flush();
    });
  }

  /** Reads everything that is in the socket at this instant, without waiting; frames go to the handler as usual. */
  drain(): void {
    const descriptor = socketDescriptor(this.socket);
    if (descriptor === undefined || !this.open) return;
    // While paused, Node has taken some bytes already: they come before those in the kernel (`read` emits them as data).
    while (this.socket.readableLength > 0) this.socket.read();
    for (let total = 0; total < drainBytesMax; ) {
      const count = readNow(descriptor, this.drainBuffer);
      if (count <= 0) return;
      total += count;
      this.take(this.drainBuffer.subarray(0, count));
    }
  }

  /** Stops reading: the peer's own queue fills and it waits. */
  pause(): void {
    this.socket.pause();
  }

  resume(): void {
    this.socket.resume();
  }

  close(): void {
    this.flush();
    this.open = false;
    this.socket.destroy();
  }

  private take(chunk: Uint8Array): void {
    this.counters.bytesIn += chunk.length;
    const sound = this.parser.push(chunk, (frame) => {
      this.counters.framesIn += 1;
      this.handlers.frame(frame);
    });
    if (sound) return;
    this.counters.malformed += 1;
    this.socket.destroy();
  }

  private reserve(bytes: number): void {
    if (this.outBytes + bytes <= this.out.length) return;
    const larger = Buffer.allocUnsafeSlow(Math.max(this.out.length * 2, this.outBytes + bytes));
    this.out.copy(larger, 0, 0, this.outBytes);
    this.out = larger;
  }

  private onClose(): void {
    if (!this.open) return;
    this.open = false;
    this.handlers.closed();
  }
}

function writeDescriptor(descriptor: number, bytes: Buffer, length: number): number {
  try {
    return writeSync(descriptor, bytes, 0, length);
  } catch {
    return 0;
  }
}

/** Bytes read now; 0 at the end, -1 when nothing is there (the descriptor does not block). */
function readNow(descriptor: number, into: Buffer): number {
  try {
    return readSync(descriptor, into, 0, into.length, null);
  } catch {
    return -1;
  }
}
