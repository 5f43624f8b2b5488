// The node's end of its QEMU's network card: a Unix socket that the node listens on before QEMU starts. Who handles the
// guest's frames changes with the node's role; the socket stays.
//
// `settled` answers whether QEMU has taken everything that was sent to it (SIOCOUTQ of the socket): a capture wants the
// guest to have all ingress that was delivered before it, so that "after the marker" is exact and nothing is repeated.

import type { Server, Socket } from 'node:net';
import { unreadBytes } from '../../base/socket-queue.ts';
import { listenForFrames } from '../../netdev/endpoint.ts';
import { FrameSocket } from '../../netdev/frame-socket.ts';

export class Nic {
  /** Set by the role that owns the guest now; frames are dropped while nobody does. */
  handler: ((frame: Uint8Array) => void) | undefined;
  private readonly server: Server;
  private socket: Socket | undefined;
  private frames: FrameSocket | undefined;
  private readonly attached: Promise<void>;

  private constructor(server: Server, attached: Promise<void>) {
    this.server = server;
    this.attached = attached;
  }

  static async listen(path: string): Promise<Nic> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const server = await listenForFrames(path, (socket) => {
      nic.attach(socket);
      resolve();
    });
    const nic = new Nic(server, promise);
    return nic;
  }

  /** Resolves when QEMU has connected its card. */
  connected(): Promise<void> {
    return this.attached;
  }

  send(frame: Uint8Array): void {
    this.frames?.send(frame);
  }

  flush(): void {
    this.frames?.flush();
  }

  /** Takes what the guest has sent until this instant. */
  drain(): void {
    this.frames?.drain();
  }

  get bytesIn(): number {
    return this.frames?.counters.bytesIn ?? 0;
  }

  /** True when QEMU has read everything sent to it; undefined when the system cannot tell. */
  settled(): boolean | undefined {
    this.frames?.flush();
    if (this.socket === undefined || this.socket.writableLength > 0)
      return this.socket === undefined ? undefined : false;
    const bytes = unreadBytes(this.socket);
    return bytes === undefined ? undefined : bytes === 0;
  }

  pause(paused: boolean): void {
    if (paused) this.frames?.pause();
    else this.frames?.resume();
  }

  get counters() {
    return this.frames?.counters;
  }

  async close(): Promise<void> {
    this.frames?.close();
    await new Promise<void>((resolve) => this.server.close(() => resolve()));
  }

  private attach(socket: Socket): void {
    if (this.frames !== undefined) {
      socket.destroy();
      return;
    }
    this.socket = socket;
    this.frames = new FrameSocket(socket, {
      frame: (frame) => this.handler?.(frame),
      closed: () => undefined,
    });
  }
}
