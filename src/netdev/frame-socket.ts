// A socket that carries Ethernet frames: between a node and its QEMU's network card, and between a node and the network
// it stands in. Frames sent in one turn of the event loop leave in one write.
//
// `drain` exists for the capture of a checkpoint: frames that the guest sent before it stopped are already in the
// socket, and must be told from those it sends after it goes on, so they are read at once, without the event loop.
//
// A node's way to the network asks `maySend` and writes in the same breath, past Node's own queue. Between a frame's
// release and its write the process may be stopped for as long as it likes, and somebody else may speak for the guest
// then: so nothing may lie in between. It writes whole frames, few enough that a Unix socket takes them all or none: a
// frame that was taken in part would have to be finished later, whoever speaks then. When there is no room it asks
// again later.
//
// What is to be written is gathered in a buffer that is handed to the kernel as it is and used again when it is
// written: a frame is copied once.

import { readSync, writeSync } from 'node:fs';
import type { Socket } from 'node:net';
import { systemClock } from '../base/clock.ts';
import { socketDescriptor } from '../base/socket-queue.ts';
import { FrameParser } from './frame-parser.ts';
import { drainBytesMax, roomPollMs, sendQueueBytesMax, spareBytesMax, sparesMax, wholeBytesMax } from './limits.ts';

export interface FrameHandlers {
  /** A frame arrived; valid during the call. */
  frame(frame: Uint8Array): void;
  closed(): void;
  /**
   * Asked before every write: false drops what waits to be written, and counts it. Without it everything is written.
   */
  maySend?(): boolean;
  /** `progress` of the socket has gone on. */
  settled?(): void;
}

/** The kernel's side of a socket; the simulation has one of its own. */
export interface Kernel {
  /**
   * How many of the bytes it took now: 0 when it has no room (the descriptor does not block), or when the peer is gone.
   */
  write(descriptor: number, bytes: Buffer, from: number, length: number): number;
  /** Calls back when there may be room again. */
  later(action: () => void): void;
}

const readBytes = 256 * 1024;
const outBytesAtFirst = 64 * 1024;

export class FrameSocket {
  readonly progress = { taken: 0, settled: 0, lost: 0 };
  readonly counters = { framesIn: 0, bytesIn: 0, framesOut: 0, bytesOut: 0, dropped: 0, malformed: 0, withheld: 0 };
  private readonly socket: Socket;
  private readonly handlers: FrameHandlers;
  private readonly parser = new FrameParser();
  private out: Buffer = Buffer.allocUnsafeSlow(outBytesAtFirst);
  /** What waits lies in `out` from here ... */
  private outFrom = 0;
  /** ... to here. */
  private outEnd = 0;
  private readonly spares: Buffer[] = [];
  private flushing = false;
  /** The kernel had no room. */
  private isWaiting = false;
  private open = true;
  private readonly drainBuffer = Buffer.allocUnsafe(readBytes);
  private readonly kernel: Kernel;

  constructor(socket: Socket, handlers: FrameHandlers, kernel: Kernel = realKernel) {
    this.socket = socket;
    this.handlers = handlers;
    this.kernel = kernel;
    socket.on('data', (chunk: Buffer) => this.take(chunk));
    socket.on('error', () => undefined);
    socket.on('close', () => this.onClose());
  }

  get problem(): string {
    return this.open ? '' : 'its socket is closed';
  }

  /** Queues a frame (copied); dropped and counted when the peer has not read for too long. */
  send(frame: Uint8Array): void {
    this.progress.taken += 1;
    const isFull = this.socket.writableLength + this.outEnd - this.outFrom > sendQueueBytesMax;
    if (isFull) this.counters.dropped += 1;
    if (isFull || !this.open) {
      this.settle(1, true);
      return;
    }
    this.reserve(4 + frame.length);
    const { out, outEnd: at } = this;
    const { length } = frame;
    out[at] = 0;
    out[at + 1] = length >>> 16;
    out[at + 2] = length >>> 8;
    out[at + 3] = length;
    out.set(frame, at + 4);
    this.outEnd = at + 4 + length;
    this.counters.framesOut += 1;
    this.counters.bytesOut += frame.length;
    if (this.flushing) return;
    this.flushing = true;
    queueMicrotask(() => this.flush());
  }

  /** Writes what is queued now. */
  flush(): void {
    this.flushing = false;
    if (this.outFrom === this.outEnd || !this.open) return;
    if (this.handlers.maySend !== undefined) {
      this.flushIfAllowed();
      return;
    }
    const written = this.out;
    this.socket.write(written.subarray(0, this.outEnd), () => this.keep(written));
    this.out = this.spares.pop() ?? Buffer.allocUnsafeSlow(outBytesAtFirst);
    this.outEnd = 0;
    // Node has them: who must know more asks for `maySend`, and so writes by itself.
    this.settle(this.progress.taken - this.progress.settled, false);
  }

  private settle(frames: number, areLost: boolean): void {
    if (frames === 0) return;
    this.progress.settled += frames;
    if (areLost) this.progress.lost += frames;
    this.handlers.settled?.();
  }

  /** What was taken and has not been written: copies, the oldest first. */
  unwritten(): Uint8Array[] {
    const { out, outEnd } = this;
    const frames: Uint8Array[] = [];
    for (let at = this.outFrom; at < outEnd; ) {
      const end = at + 4 + out.readUInt32BE(at);
      frames.push(new Uint8Array(out.subarray(at + 4, end)));
      at = end;
    }
    return frames;
  }

  private keep(written: Buffer): void {
    if (this.spares.length < sparesMax && written.length <= spareBytesMax) this.spares.push(written);
  }

  private flushIfAllowed(): void {
    const descriptor = socketDescriptor(this.socket);
    if (descriptor === undefined) return;
    while (this.outFrom < this.outEnd && !this.isWaiting) {
      const length = this.wholeFrames() - this.outFrom;
      // As little as can be lies between the look and the write: what the process is stopped with there leaves late.
      // The look may release more frames, and so move what waits.
      if (this.handlers.maySend?.() === false) {
        this.counters.withheld += 1;
        break;
      }
      const taken = this.kernel.write(descriptor, this.out, this.outFrom, length);
      if (taken < length) this.waitForRoom(taken);
      else this.written(this.outFrom + length);
    }
    if (this.isWaiting) return;
    const lost = this.countTo(this.outEnd);
    this.outFrom = 0;
    this.outEnd = 0;
    this.settle(lost, true);
  }

  /** The kernel has what waited up to `end`. */
  private written(end: number): void {
    const frames = this.countTo(end);
    this.outFrom = end;
    this.settle(frames, false);
  }

  private countTo(end: number): number {
    let frames = 0;
    for (let at = this.outFrom; at < end; at += 4 + this.out.readUInt32BE(at)) frames += 1;
    return frames;
  }

  /** Where the frames end that are written next. */
  private wholeFrames(): number {
    const { out, outFrom, outEnd } = this;
    let end = outFrom;
    for (let next = end; next < outEnd && next - outFrom <= wholeBytesMax; ) {
      next += 4 + out.readUInt32BE(next);
      if (end === outFrom || next - outFrom <= wholeBytesMax) end = next;
    }
    return end;
  }

  /** A frame that was taken in part, as only one beyond `wholeBytesMax` can be, has to be finished by Node. */
  private waitForRoom(taken: number): void {
    const { out, outFrom } = this;
    let end = outFrom;
    while (end < outFrom + taken) end += 4 + out.readUInt32BE(end);
    const rest = Buffer.from(out.subarray(outFrom + taken, end));
    this.isWaiting = true;
    this.written(end);
    const goOn = () => {
      this.isWaiting = false;
      this.flush();
    };
    if (rest.length === 0) this.kernel.later(goOn);
    else this.socket.write(rest, goOn);
  }
  /** Reads everything that is in the socket at this instant, without waiting; frames go to the handler as usual. */
  drain(): void {
    const descriptor = socketDescriptor(this.socket);
    if (descriptor === undefined || !this.open) return;
    // While paused, Node has taken some bytes already: they come before those in the kernel (`read` emits them as
    // data).
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
    this.end();
    this.socket.destroy();
  }

  /** What waits is never written. */
  private end(): void {
    this.open = false;
    const lost = this.countTo(this.outEnd);
    this.outFrom = 0;
    this.outEnd = 0;
    this.settle(lost, true);
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
    if (this.outEnd + bytes <= this.out.length) return;
    const { out, outFrom, outEnd } = this;
    const waiting = outEnd - outFrom;
    const isRoomy = outFrom >= out.length / 2 && waiting + bytes <= out.length;
    if (!isRoomy) this.out = Buffer.allocUnsafeSlow(Math.max(out.length * 2, waiting + bytes));
    out.copy(this.out, 0, outFrom, outEnd);
    this.outFrom = 0;
    this.outEnd = waiting;
  }

  private onClose(): void {
    if (!this.open) return;
    this.end();
    this.handlers.closed();
  }
}

const realKernel: Kernel = {
  write: (descriptor, bytes, from, length) => {
    try {
      return writeSync(descriptor, bytes, from, length);
    } catch {
      return 0;
    }
  },
  later: (action) => void systemClock.after(roomPollMs, action),
};

/** Bytes read now; 0 at the end, -1 when nothing is there (the descriptor does not block). */
function readNow(descriptor: number, into: Buffer): number {
  try {
    return readSync(descriptor, into, 0, into.length, null);
  } catch {
    return -1;
  }
}
