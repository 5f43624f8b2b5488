// NBD on a Unix socket: each connection is a session (session.ts), every request goes to one handler, which answers it
// once, when it wants, in any order. The socket's mode keeps other users out.

import { chmod, rm } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { ColoError, errorCodes } from '../base/errors.ts';
import { connectionsMax } from './limits.ts';
import type { NbdError } from './protocol.ts';
import { type NbdExport, type NbdRequest, NbdSession } from './session.ts';

/** Answers a request; the second call and one after the connection's end do nothing. */
export type Answer = (error: NbdError, data?: Uint8Array) => void;

export interface NbdServerOptions {
  path: string;
  exports: readonly NbdExport[];
  handle(request: NbdRequest, answer: Answer): void;
  /** A connection ended; `why` where it was the client's fault. */
  ended?(why: string | undefined): void;
}

export class NbdServer {
  private readonly options: NbdServerOptions;
  private readonly server: Server;
  private readonly sockets = new Set<Socket>();

  private constructor(options: NbdServerOptions) {
    this.options = options;
    this.server = createServer((socket) => this.accept(socket));
  }

  static async listen(options: NbdServerOptions): Promise<NbdServer> {
    const nbd = new NbdServer(options);
    await rm(options.path, { force: true });
    await new Promise<void>((resolve, reject) => {
      nbd.server.once('error', reject);
      nbd.server.listen(options.path, resolve);
    }).catch((cause: unknown) => {
      throw new ColoError(errorCodes.host, `the disk's socket ${options.path} cannot be opened`, { cause });
    });
    await chmod(options.path, 0o600);
    return nbd;
  }

  /** Stops listening and ends every connection: what was not answered fails at the client. */
  async close(): Promise<void> {
    for (const socket of this.sockets) socket.destroy();
    await new Promise<void>((resolve) => this.server.close(() => resolve()));
  }

  private accept(socket: Socket): void {
    if (this.sockets.size >= connectionsMax) {
      socket.destroy();
      return;
    }
    this.sockets.add(socket);
    const session = new NbdSession(this.options.exports, {
      send: (...parts) => {
        socket.cork();
        for (const part of parts) if (part.length > 0) socket.write(part);
        process.nextTick(() => socket.uncork());
      },
      request: (request) => this.options.handle(request, this.answerOf(session, socket, request)),
      ended: (why) => {
        socket.destroySoon();
        this.options.ended?.(why);
      },
    });
    socket.on('data', (chunk: Buffer) => {
      session.push(chunk);
      if (session.full) socket.pause();
    });
    socket.on('error', () => undefined);
    socket.on('close', () => {
      this.sockets.delete(socket);
      session.end(undefined);
    });
  }

  private answerOf(session: NbdSession, socket: Socket, request: NbdRequest): Answer {
    return (error: NbdError, data?: Uint8Array) => {
      session.reply(request, error, data);
      if (!session.full && socket.isPaused()) socket.resume();
    };
  }
}
