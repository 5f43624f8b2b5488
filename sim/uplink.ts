// A node's way to the network: the product's own FrameSocket, on a socket of this simulation. So what waits is queued,
// looked at and written by the code that does it on a real host, and only the kernel under it is simulated:
//
//    node ──send──► FrameSocket ──look (maySend), write──► kernel: takes all, some (it fills up), or nothing
//              ▲                                     ▲
//              └── the process may be stopped here ──┘    and wakes when somebody else may speak for the guest
//
// Two things leave without a fresh look, whatever a program does, and are called late: what was looked at, when the process
// is stopped before the kernel has it; and the one frame that Node keeps for a kernel that is full.

import type { Socket } from 'node:net';
import type { Uplink } from '../src/netdev/endpoint.ts';
import { FrameParser } from '../src/netdev/frame-parser.ts';
import { type FrameHandlers, FrameSocket } from '../src/netdev/frame-socket.ts';
import type { SimProcess } from './process.ts';

type Leave = (frame: Uint8Array, late: boolean) => void;

/** The kernel's side of the socket. */
export class SimKernel {
  private readonly process: SimProcess;
  private readonly leave: Leave;
  private readonly parser = new FrameParser();
  /** Bytes that it still takes; undefined: any number. */
  private room: number | undefined = undefined;
  private waiting: { bytes: Buffer; done: () => void }[] = [];

  constructor(process: SimProcess, leave: Leave) {
    this.process = process;
    this.leave = leave;
  }

  get isFull(): boolean {
    return this.room !== undefined;
  }

  /** Whoever reads from it stands still: it takes `room` bytes more. */
  fill(room: number): void {
    this.room = room;
  }

  empty(): void {
    this.room = undefined;
    // Node hears of the room in its event loop.
    this.process.run(() => {
      const waiting = this.waiting.splice(0);
      for (const [index, { bytes }] of waiting.entries()) this.emit(bytes, index === 0 ? 1 : 0);
      for (const { done } of waiting) done();
    });
  }

  /** write(2) on a descriptor that does not block. */
  write(bytes: Buffer, length: number): number {
    const { process } = this;
    if (!process.alive) return length;
    const taken = Math.min(length, this.room ?? length);
    if (this.room !== undefined) this.room -= taken;
    if (process.acts('write')) this.emit(bytes.subarray(0, taken), 0);
    else {
      const kept = Buffer.from(bytes.subarray(0, taken));
      process.run(() => this.emit(kept, Number.POSITIVE_INFINITY));
    }
    return taken;
  }

  /** Node's own write: it tries at once, and waits for room. */
  writeLater(bytes: Buffer, done: () => void): void {
    if (this.room === undefined) {
      this.emit(bytes, 0);
      queueMicrotask(done);
    } else this.waiting.push({ bytes: Buffer.from(bytes), done });
  }

  /** The first `late` frames leave without a fresh look. */
  private emit(bytes: Buffer, late: number): void {
    let left = late;
    this.parser.push(bytes, (frame) => {
      this.leave(frame, left > 0);
      left -= 1;
    });
  }

  /** Bytes that Node keeps for it. */
  get waitingBytes(): number {
    return this.waiting.reduce((sum, { bytes }) => sum + bytes.length, 0);
  }
}

/** As much of a socket as FrameSocket uses. */
function socketOf(kernel: SimKernel): Socket {
  const nothing = () => undefined;
  const socket = {
    _handle: { fd: 0 },
    readableLength: 0,
    get writableLength() {
      return kernel.waitingBytes;
    },
    write: (bytes: Buffer, done: () => void) => kernel.writeLater(bytes, done),
    ...{ on: nothing, pause: nothing, resume: nothing, destroy: nothing },
  };
  return socket as unknown as Socket;
}

export interface SimUplink {
  uplink: Uplink;
  kernel: SimKernel;
}

/** `close`: the node unplugs it. */
export function openUplink(
  process: SimProcess,
  handlers: FrameHandlers,
  on: { leave: Leave; release: (frame: Uint8Array) => void; close: () => void },
): SimUplink {
  const kernel = new SimKernel(process, on.leave);
  const frames = new FrameSocket(socketOf(kernel), handlers, (_descriptor, bytes, length) =>
    kernel.write(bytes, length),
  );
  const uplink: Uplink = {
    counters: frames.counters,
    pause: () => undefined,
    resume: () => undefined,
    close: () => {
      frames.close();
      on.close();
    },
    send: (frame) => {
      if (!process.alive) return;
      if (process.acts('release')) {
        on.release(frame);
        frames.send(frame);
        return;
      }
      const copy = Uint8Array.from(frame);
      process.run(() => {
        on.release(copy);
        frames.send(copy);
      });
    },
  };
  return { uplink, kernel };
}
