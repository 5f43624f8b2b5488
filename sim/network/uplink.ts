// A node's way to the network: the product's own FrameSocket, on a socket of this simulation. So what waits is queued,
// looked at and written by the code that does it on a real host, and only the kernel under it is simulated:
//
//    node ──send──► FrameSocket ──look (maySend), write──► kernel: takes all, or nothing (it is full)
//              ▲                                     ▲
//              └── the process may be stopped here ──┘    and wakes when somebody else may speak for the guest
//
// One thing leaves without a fresh look, whatever a program does, and is called late: what was looked at, when the
// process is stopped before the kernel has it.

import type { Socket } from 'node:net';
import type { Uplink } from '../../src/netdev/endpoint.ts';
import { FrameParser } from '../../src/netdev/frame-parser.ts';
import { type FrameHandlers, FrameSocket, type Kernel } from '../../src/netdev/frame-socket.ts';
import type { SimProcess } from '../host/process.ts';

type Leave = (frame: Uint8Array, late: boolean) => void;

/** The kernel's side of the socket. */
export class SimKernel implements Kernel {
  private readonly process: SimProcess;
  private readonly leave: Leave;
  private readonly parser = new FrameParser();
  /** Bytes that it still takes; undefined: any number. */
  private room: number | undefined = undefined;
  private waiting: (() => void)[] = [];

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
      for (const action of this.waiting.splice(0)) action();
    });
  }

  /** write(2) on a Unix socket that does not block: all of it or nothing. */
  write(_descriptor: number, bytes: Buffer, from: number, length: number): number {
    const { process } = this;
    if (!process.alive) return length;
    if (this.room !== undefined && this.room < length) return 0;
    if (this.room !== undefined) this.room -= length;
    const kept = Buffer.from(bytes.subarray(from, from + length));
    if (process.acts('write')) this.emit(kept, false);
    else process.run(() => this.emit(kept, true));
    return length;
  }

  later(action: () => void): void {
    this.waiting.push(action);
  }

  /** `late`: without a fresh look. */
  private emit(bytes: Buffer, late: boolean): void {
    this.parser.push(bytes, (frame) => this.leave(frame, late));
  }
}

/** As much of a socket as FrameSocket uses. */
function socketOf(): Socket {
  const nothing = () => undefined;
  const socket = {
    _handle: { fd: 0 },
    readableLength: 0,
    writableLength: 0,
    ...{ on: nothing, pause: nothing, resume: nothing, destroy: nothing },
  };
  return socket as unknown as Socket;
}

export interface SimUplink {
  uplink: Uplink;
  frames: FrameSocket;
  kernel: SimKernel;
}

/** `close`: the node unplugs it. */
export function openUplink(
  process: SimProcess,
  handlers: FrameHandlers,
  on: { leave: Leave; release: (frame: Uint8Array) => void; close: () => void },
): SimUplink {
  const kernel = new SimKernel(process, on.leave);
  const frames = new FrameSocket(socketOf(), handlers, kernel);
  /** Handed in, and on their way to the socket while the process stands still. */
  const underWay = new Set<Uint8Array>();
  const uplink: Uplink = {
    counters: frames.counters,
    problem: '',
    progress: {
      get taken() {
        return frames.progress.taken + underWay.size;
      },
      get settled() {
        return frames.progress.settled;
      },
      get lost() {
        return frames.progress.lost;
      },
    },
    unwritten: () => [...frames.unwritten(), ...underWay],
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
      underWay.add(copy);
      process.run(() => {
        underWay.delete(copy);
        on.release(copy);
        frames.send(copy);
      });
    },
  };
  return { uplink, frames, kernel };
}
