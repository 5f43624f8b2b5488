// The listening side of links: lets in whom the owner wants, of those that prove who they are, and tells the others why
// not. Connections of strangers cost a bounded number of handshakes (guard.ts, limits.ts).

import type { Server, Socket } from 'node:net';
import { errorText } from '../base/errors.ts';
import type { IdentitySource } from '../base/identity.ts';
import { linkTypes, type Refusal, type RefusalKind } from './frame.ts';
import { afterHello, checkClientHello, checkName, type FirstMessage, readFirstMessage } from './handshake.ts';
import { encodeHello, encodeRefuse, type Hello, parseHello } from './hello.ts';
import { handshakesMax } from './limits.ts';
import { Link } from './link.ts';
import { Outbox } from './outbox.ts';
import { type Address, bind, peerName } from './socket.ts';

export interface LinkServerOptions {
  /** Why this peer gets no link, or undefined to accept it. */
  accept(peer: Hello): string | undefined;
  /** A new link; it is the receiver's to start and to end. */
  link(link: Link): void;
  /** This node's hello to an accepted peer. */
  local(peer: Hello): Hello;
  handshakeTimeoutMs: number;
  /** This node's certificate; needed on TCP. */
  identity?: IdentitySource;
  /**
   * A connection that got no link: what was wrong with it, and in words. It may be a stranger's, and there may be many.
   */
  refused?(kind: RefusalKind | 'unwanted' | 'rate' | 'busy', text: string): void;
}

export class LinkServer {
  /** Connections by how they ended. `refused` counts by what was wrong with the peer's first bytes. */
  readonly counters: {
    accepted: number;
    busy: number;
    rate: number;
    unwanted: number;
    refused: Partial<Record<RefusalKind, number>>;
  } = {
    accepted: 0,
    busy: 0,
    rate: 0,
    unwanted: 0,
    refused: {},
  };
  private readonly options: LinkServerOptions;
  private server: Server | undefined;
  private readonly handshakes = new Set<Socket>();

  private constructor(options: LinkServerOptions) {
    this.options = options;
  }

  static async listen(address: Address, options: LinkServerOptions): Promise<LinkServer> {
    const links = new LinkServer(options);
    const acceptor = {
      accept: (socket: Socket) => void links.onSocket(socket),
      refused: (cause: unknown) =>
        links.count({ kind: 'identity', text: `did not prove who it is: ${errorText(cause)}` }),
      turnedBack: (verdict: 'rate' | 'busy', address: string) => links.turnBack(verdict, address),
      handshakeTimeoutMs: options.handshakeTimeoutMs,
    };
    links.server = await bind(address, acceptor, options.identity);
    return links;
  }

  /** Where it listens; the port that was chosen when port 0 was asked for. */
  get address(): Address {
    const bound = this.server?.address();
    if (typeof bound === 'string') return { path: bound };
    return { host: bound?.address ?? '', port: bound?.port ?? 0 };
  }

  /** Stops listening and ends handshakes; links that were handed out live on. */
  close(): Promise<void> {
    for (const socket of this.handshakes) socket.destroy();
    // The callback of Server.close waits for handed out links too; the port is free and the file gone at once.
    this.server?.close();
    this.server?.unref();
    return Promise.resolve();
  }

  private async onSocket(socket: Socket): Promise<void> {
    socket.on('error', () => undefined);
    if (this.handshakes.size >= handshakesMax) {
      socket.destroy();
      this.turnBack('busy', socket.remoteAddress ?? '');
      return;
    }
    this.handshakes.add(socket);
    const first = await readFirstMessage(socket, AbortSignal.timeout(this.options.handshakeTimeoutMs));
    this.handshakes.delete(socket);
    if ('kind' in first) this.refuse(socket, first);
    else this.answer(socket, first);
  }

  private answer(socket: Socket, first: FirstMessage): void {
    const peer = checkClientHello(first) ?? parseHello(first.payload);
    const refusal = 'vm' in peer ? checkName(peer, peerName(socket)) : peer;
    if (refusal !== undefined || !('vm' in peer)) {
      if (refusal !== undefined) this.refuse(socket, refusal);
      return;
    }
    const reason = this.options.accept(peer);
    if (reason !== undefined) {
      this.counters.unwanted += 1;
      turnAway(socket, reason);
      this.options.refused?.('unwanted', `${peer.node} was turned away: ${reason}`);
      return;
    }
    this.counters.accepted += 1;
    const outbox = new Outbox();
    outbox.add(linkTypes.hello, [encodeHello(this.options.local(peer))]);
    for (const piece of outbox.take()) socket.write(piece);
    this.options.link(new Link(socket, peer, { decoder: afterHello(first.decoder), outbox }));
  }

  private refuse(socket: Socket, refusal: Refusal): void {
    turnAway(socket, refusal.text);
    this.count(refusal);
  }

  private count(refusal: Refusal): void {
    this.counters.refused[refusal.kind] = (this.counters.refused[refusal.kind] ?? 0) + 1;
    this.options.refused?.(refusal.kind, `a connection was refused: it ${refusal.text}`);
  }

  private turnBack(verdict: 'rate' | 'busy', address: string): void {
    this.counters[verdict] += 1;
    this.options.refused?.(verdict, `connections from ${address} come too fast`);
  }
}

function turnAway(socket: Socket, reason: string): void {
  const outbox = new Outbox();
  outbox.add(linkTypes.refuse, [encodeRefuse(reason)]);
  for (const piece of outbox.take()) socket.write(piece);
  socket.destroySoon();
}
