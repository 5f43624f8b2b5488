// Reads frames from a descriptor that gives one frame a read (a TAP, a packet socket), in the event loop of Node.
//
// Node polls sockets and pipes, nothing else. So a socket of a pair is given to Node, and in the same tick, before
// libuv has told the kernel about it, the descriptor under it is replaced (dup2) by the device's: libuv then polls the
// device itself. Measured: 350,000 frames/s and 6 us for a round trip; the thread pool manages 20,000 frames/s, and a
// worker that is blocked in a read cannot be ended.
//
// The trick rests on libuv registering lazily, which nothing promises. So it is tried on a socket pair first, once per
// process; where it does not work the device is read every millisecond instead: slower, and said in the log.

import { closeSync, readSync, writeSync } from 'node:fs';
import { Socket } from 'node:net';
import { type Clock, systemClock } from '../base/clock.ts';
import { openSocketPair, replaceDescriptor } from '../base/descriptors.ts';
import { devicePollMs, deviceReadsPerPoll, deviceTestMs, frameBytesMax } from './limits.ts';

export interface DeviceHandlers {
  /** A frame was read; valid during the call. */
  frame(frame: Uint8Array): void;
  /** The device is gone. */
  closed(): void;
}

export interface DeviceReader {
  pause(): void;
  resume(): void;
  /** Stops reading; the device's own descriptor is its owner's to close. */
  close(): void;
}

let worksHere: Promise<boolean> | undefined;

/** Begins to read the non-blocking descriptor `fd`. */
export async function readDevice(
  fd: number,
  handlers: DeviceHandlers,
  options: { clock?: Clock; polled?: boolean } = {},
): Promise<DeviceReader & { polled: boolean }> {
  worksHere ??= test(options.clock ?? systemClock);
  const polled = options.polled ?? !(await worksHere);
  const reader = polled ? pollReader(fd, handlers, options.clock ?? systemClock) : socketReader(fd, handlers);
  return Object.assign(reader, { polled });
}

function socketReader(fd: number, handlers: DeviceHandlers): DeviceReader {
  const [ours, other] = openSocketPair();
  const socket = new Socket({
    fd: ours,
    readable: true,
    writable: false,
    onread: {
      buffer: Buffer.allocUnsafeSlow(frameBytesMax),
      callback: (bytes, buffer) => {
        handlers.frame(buffer.subarray(0, bytes));
        return true;
      },
    },
  });
  // Before this tick ends.
  replaceDescriptor(fd, ours);
  closeSync(other);
  let open = true;
  const end = (): void => {
    if (!open) return;
    open = false;
    handlers.closed();
  };
  socket.on('error', end);
  socket.on('close', end);
  return {
    pause: () => void socket.pause(),
    resume: () => void socket.resume(),
    close: () => {
      open = false;
      socket.destroy();
    },
  };
}

function pollReader(fd: number, handlers: DeviceHandlers, clock: Clock): DeviceReader {
  const buffer = Buffer.allocUnsafeSlow(frameBytesMax);
  let paused = false;
  const stop = clock.every(devicePollMs, () => {
    for (let count = 0; count < deviceReadsPerPoll && !paused; count += 1) {
      const bytes = readNow(fd, buffer);
      if (bytes === undefined) return;
      if (bytes > 0) handlers.frame(buffer.subarray(0, bytes));
      else {
        stop();
        handlers.closed();
        return;
      }
    }
  });
  return {
    pause: () => {
      paused = true;
    },
    resume: () => {
      paused = false;
    },
    close: stop,
  };
}

/** Bytes read; 0 when the device is gone, undefined when nothing is there. */
function readNow(fd: number, buffer: Buffer): number | undefined {
  try {
    return readSync(fd, buffer, 0, buffer.length, null);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EAGAIN' ? undefined : 0;
  }
}

/** Whether what is put under a socket is what Node then reads. */
async function test(clock: Clock): Promise<boolean> {
  const [device, far] = openSocketPair();
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const cancel = clock.after(deviceTestMs, () => resolve(false));
  const reader = socketReader(device, { frame: (frame) => resolve(frame[0] === 7), closed: () => resolve(false) });
  try {
    writeSync(far, Uint8Array.of(7));
    return await promise;
  } finally {
    cancel();
    reader.close();
    closeSync(device);
    closeSync(far);
  }
}
