// Both ends of a frame socket: `listenForFrames` is what a QEMU netdev or a switch port connects to, `connectForFrames`
// is a node's uplink. Unix sockets of this machine only; other uplinks (TAP) are classes with the same face.

import { rm } from 'node:fs/promises';
import { createConnection, createServer, type Server, type Socket } from 'node:net';
import { ColoError, errorCodes } from '../base/errors.ts';
import { type FrameHandlers, FrameSocket } from './frame-socket.ts';

/**
 * What became of the frames that were handed in, counted from the first. One is *settled* when it has been written, or
 * never will be: then it is *lost* too. While none is lost they are settled in their order; a loss overtakes what
 * waits.
 */
export interface Progress {
  readonly taken: number;
  readonly settled: number;
  readonly lost: number;
}

/** Where a node gives and takes frames of the network: a Unix socket here, a TAP later. */
export interface Uplink {
  send(frame: Uint8Array): void;
  readonly progress: Progress;
  /** What was taken and has not been written: copies, the oldest first. */
  unwritten(): Uint8Array[];
  pause(): void;
  resume(): void;
  close(): void;
  /** Why nothing reaches the network through it; '' while nothing is known to be wrong. */
  readonly problem: string;
  readonly counters: { framesIn: number; bytesIn: number; framesOut: number; bytesOut: number };
}

/** Listens at `path`; `accept` is called for each peer and returns what handles its frames. */
export async function listenForFrames(path: string, accept: (socket: Socket) => void): Promise<Server> {
  await rm(path, { force: true });
  const server = createServer(accept);
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause) =>
      reject(new ColoError(errorCodes.host, `cannot listen at ${path}`, { cause, hint: 'check the run directory' })),
    );
    server.listen(path, resolve);
  });
  return server;
}

/** Connects to a switch port at `path`. */
export async function connectForFrames(path: string, handlers: FrameHandlers): Promise<FrameSocket> {
  const socket = createConnection(path);
  await new Promise<void>((resolve, reject) => {
    socket.once('connect', resolve);
    socket.once('error', (cause) =>
      reject(
        new ColoError(errorCodes.host, `cannot reach the network at ${path}`, {
          cause,
          hint: 'start the node by `colo run` or colod, which start its network first',
        }),
      ),
    );
  });
  return new FrameSocket(socket, handlers);
}
