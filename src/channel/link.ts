// The link between the two nodes of a pair: whole messages over one connection, in order, or an end with its reason.
//
//    send ─► outbox ─(end of tick)─► socket ══════ socket ─► decoder ─► handlers.message
//
// Three links join a pair (beat, packet, bulk), so that a checkpoint never delays a beat or a packet. A link never
// reconnects by itself: what a broken link means is for the controller to decide.
//
// Promises:
//  - `message` sees each message of the peer once, in order and undamaged, or the link closes with a ColoError.
//  - `closed` is called exactly once, never from inside a call of ours, and nothing is called after it. Its error is
//    undefined when either side closed in order (a bye was sent, or we destroyed it), and set when the peer vanished,
//    or when this side gave the link up.
//  - A link that ends otherwise than by a call of its owner is told to the owner before the peer can see it: a
//    primary's right to speak is over then, and the peer may take it from that on. Nothing else is handled in between.
//  - A side that ends a link says why in its bye, and the other one has that as `farewell`: both know the same reason.
//  - `send` never blocks and never throws on a broken link: what was sent on one is lost, as if it were on the way.
//
// Reading uses plain data events. A socket with `onread` and one reused buffer moved 9.9 GB/s where data events moved
// 3.2 (Unix socket, one process), but accepted sockets and TLS cannot have it, and the checksum is the next bound.
//
// Limits: limits.ts. Socket, timers: this file owns them; it decides nothing.

import type { Socket } from 'node:net';
import { setImmediate } from 'node:timers';
import { afterAwake, type Clock, systemClock } from '../base/clock.ts';
import { ColoError, errorCodes } from '../base/errors.ts';
import type { Identity } from '../base/identity.ts';
import { type FrameDecoder, lastUserType, linkTypes, type Refusal } from './frame.ts';
import { afterHello, checkName, type FirstMessage, readFirstMessage } from './handshake.ts';
import { encodeHello, type Hello, parseHello, parseRefuse } from './hello.ts';
import { closeTimeoutMs, congestedBytes, farewellCharactersMax, queueBytesMax } from './limits.ts';
import { Outbox } from './outbox.ts';
import { type Address, addressText, dial, peerName } from './socket.ts';

export type { Hello, LinkKind } from './hello.ts';
export type { Address } from './socket.ts';

export interface LinkHandlers {
  /** One message; the payload is valid during the call only. */
  message(type: number, payload: Buffer): void;
  /** The link is over; see the promises above. */
  closed(error: ColoError | undefined): void;
  /** The link was congested and is not any more. */
  drained?(): void;
}

export interface LinkCounters {
  messagesSent: number;
  bytesSent: number;
  messagesReceived: number;
  bytesReceived: number;
  /** How often `congested` was set. */
  congestions: number;
}

export class Link {
  readonly peer: Hello;
  readonly counters: LinkCounters = {
    messagesSent: 0,
    bytesSent: 0,
    messagesReceived: 0,
    bytesReceived: 0,
    congestions: 0,
  };
  private readonly socket: Socket;
  private readonly decoder: FrameDecoder;
  private readonly outbox: Outbox;
  private handlers: LinkHandlers | undefined;
  private flushDue = false;
  private congestedNow = false;
  private drainWaiters: (() => void)[] = [];
  /**
   * The end came from the other end: a bye, or the end of its stream. Not a reset: a firewall, `ss -K` or a forgotten
   * connection on the way reset one as well, and then the peer may live, and hear of it later than this side.
   */
  endedByPeer = false;
  /** Why the other end ended it, in its own words; '' when it said nothing. */
  farewell = '';
  /** No message is delivered and none is taken any more. */
  private over = false;
  private failure: ColoError | undefined;
  private socketClosed = false;
  private told = false;

  /** For `connect` and `LinkServer`, which have shaken hands on the socket. */
  constructor(socket: Socket, peer: Hello, parts: { decoder: FrameDecoder; outbox: Outbox }) {
    this.socket = socket;
    this.peer = peer;
    this.decoder = parts.decoder;
    this.outbox = parts.outbox;
    this.socketClosed = socket.closed;
    socket.on('error', (cause) => this.onError(cause));
    socket.on('close', () => this.onSocketClosed());
    socket.on('drain', () => this.onDrain());
  }

  /** Both ends of the connection as the kernel names them; '' on a Unix socket. */
  get ends(): { local: string; remote: string } {
    const { localAddress, localPort, remoteAddress, remotePort } = this.socket;
    if (localPort === undefined || remotePort === undefined) return { local: '', remote: '' };
    return { local: `${localAddress}:${localPort}`, remote: `${remoteAddress}:${remotePort}` };
  }

  /** Bytes that were sent and that the kernel has not taken yet. */
  get queuedBytes(): number {
    return this.outbox.bytes + this.socket.writableLength;
  }

  /** True from the limit on until everything has left: stop producing, and wait for `drained`. */
  get congested(): boolean {
    return this.congestedNow;
  }

  /** True when nothing sent from now on can arrive. */
  get ended(): boolean {
    return this.over;
  }

  /**
   * Queues one message. Parts up to limits.copiedPartBytesMax are copied; a larger one belongs to the link until it has
   * left and must not change.
   */
  send(type: number, ...parts: Uint8Array[]): void {
    if (type < 1 || type > lastUserType) throw new Error(`bug: message type ${type} is not the users' to send`);
    if (this.over) return;
    this.post(type, parts);
    const queued = this.queuedBytes;
    if (queued > congestedBytes && !this.congestedNow) {
      this.congestedNow = true;
      this.counters.congestions += 1;
    }
    if (queued > queueBytesMax) this.fail(`has left ${queued} bytes unread`, { deaf: true });
  }

  /** Reading begins here; before it the peer's messages wait in the socket. */
  start(handlers: LinkHandlers): void {
    if (this.handlers !== undefined) throw new Error('bug: a link is started once');
    this.handlers = handlers;
    if (this.socketClosed) {
      setImmediate(() => this.tell());
      return;
    }
    this.socket.on('data', (chunk: Buffer) => this.onData(chunk));
    this.socket.on('end', () => this.onEnd());
    this.socket.resume();
  }

  /**
   * Stops reading, or goes on: what the peer sends waits at its side. Not for longer than a moment, or the link is
   * lost.
   */
  pause(paused: boolean): void {
    if (paused) this.socket.pause();
    else this.socket.resume();
  }

  /** Resolves when the link is not congested, or is over (see `ended`). */
  drain(): Promise<void> {
    if (!this.congestedNow || this.over) return Promise.resolve();
    return new Promise((resolve) => void this.drainWaiters.push(resolve));
  }

  /**
   * Sends what is queued and a bye that says why, then ends; `closed` follows, at the latest after
   * limits.closeTimeoutMs.
   */
  close(why = '', clock: Clock = systemClock): void {
    if (this.over) return;
    this.finish();
    this.sayBye(why, clock);
  }

  /** Ends at once; what is queued is lost. */
  destroy(): void {
    this.finish();
    this.socket.destroy();
  }

  private sayBye(why: string, clock: Clock): void {
    this.post(linkTypes.bye, [Buffer.from(why.slice(0, farewellCharactersMax))]);
    this.flush();
    this.socket.end();
    this.socket.resume();
    // After a stop of this process the last words may still be queued here.
    const cancel = afterAwake(clock, closeTimeoutMs, () => this.socket.destroy());
    this.socket.once('close', cancel);
  }

  private post(type: number, parts: readonly Uint8Array[]): void {
    const before = this.outbox.bytes;
    this.outbox.add(type, parts);
    this.counters.messagesSent += 1;
    this.counters.bytesSent += this.outbox.bytes - before;
    if (this.flushDue) return;
    this.flushDue = true;
    process.nextTick(() => this.flush());
  }

  private flush(): void {
    this.flushDue = false;
    if (this.socket.destroyed || this.socket.writableEnded) return;
    this.socket.cork();
    for (const piece of this.outbox.take()) this.socket.write(piece);
    this.socket.uncork();
  }

  private onData(chunk: Buffer): void {
    if (this.over) return;
    this.counters.bytesReceived += chunk.length;
    const refusal = this.decoder.push(chunk, (type, payload) => this.deliver(type, payload));
    if (refusal !== undefined) this.fail(`sent a message that ${refusal.text}`);
  }

  /** Returns whether to go on: a handler may have ended the link. */
  private deliver(type: number, payload: Buffer): boolean {
    if (type === linkTypes.bye) {
      this.endedByPeer = true;
      this.farewell = payload.toString('utf8').slice(0, farewellCharactersMax);
      this.end(() => this.socket.destroy());
    } else if (type > lastUserType) {
      this.fail(`sent a message of type ${type} where none is due`);
    } else {
      this.counters.messagesReceived += 1;
      this.handlers?.message(type, payload);
    }
    return !this.over;
  }

  private onError(cause: NodeJS.ErrnoException): void {
    const what = cause.code === 'ETIMEDOUT' ? 'has acknowledged nothing for too long' : 'broke';
    this.fail(what, { deaf: true, cause });
  }

  private onEnd(): void {
    if (!this.over) this.endedByPeer = true;
    if (this.decoder.atBoundary) this.fail('ended without saying bye: its process is gone', { deaf: true });
    else this.fail('ended in the middle of a message', { deaf: true });
  }

  private onDrain(): void {
    if (!this.congestedNow || this.outbox.bytes > 0) return;
    this.congestedNow = false;
    this.wakeDrainWaiters();
    if (!this.over) this.handlers?.drained?.();
  }

  /** `deaf`: the peer would not hear why. */
  private fail(what: string, { deaf = false, cause }: { deaf?: boolean; cause?: unknown } = {}): void {
    if (this.over) return;
    const { kind, node } = this.peer;
    this.failure = linkError(`the ${kind} link to ${node} is lost: the peer ${what}`, cause);
    this.end(() => (deaf ? this.socket.destroy() : this.sayBye(`${node} ${what}`, systemClock)));
  }

  /** Tells the owner, in a turn of its own since this may be in a call of the owner, and then the peer. */
  private end(tellPeer: () => void): void {
    this.finish();
    process.nextTick(() => {
      this.tell();
      tellPeer();
    });
  }

  private tell(): void {
    if (this.told || this.handlers === undefined) return;
    this.told = true;
    this.handlers.closed(this.failure);
  }

  private finish(): void {
    this.over = true;
    this.wakeDrainWaiters();
  }

  private wakeDrainWaiters(): void {
    const waiters = this.drainWaiters;
    this.drainWaiters = [];
    for (const wake of waiters) wake();
  }

  private onSocketClosed(): void {
    this.socketClosed = true;
    this.finish();
    this.tell();
  }
}

function linkError(message: string, cause: unknown): ColoError {
  return new ColoError(errorCodes.channel, message, {
    ...(cause === undefined ? {} : { cause }),
    hint: 'See whether the peer node and its colod run, and whether both run the same version of COLO.',
  });
}

/** Opens a link. Rejects with a ColoError when nobody answers in time, or when the peer refuses. */
export async function connect(
  address: Address,
  hello: Hello,
  options: { timeoutMs: number; signal?: AbortSignal; identity?: Identity; peerNode?: string },
): Promise<Link> {
  const timeout = AbortSignal.timeout(options.timeoutMs);
  const signal = options.signal === undefined ? timeout : AbortSignal.any([timeout, options.signal]);
  const socket = await dial(address, signal, options.identity);
  socket.on('error', () => undefined);
  const outbox = new Outbox();
  outbox.add(linkTypes.hello, [encodeHello(hello)]);
  for (const piece of outbox.take()) socket.write(piece);
  const refused = (refusal: Refusal): ColoError => {
    socket.destroy();
    return linkError(`no link to the peer at ${addressText(address)}: it ${refusal.text}`, options.signal?.reason);
  };
  const first = await readFirstMessage(socket, signal);
  if ('kind' in first) throw refused(first);
  const peer = serverHello(first, hello);
  if (!('vm' in peer)) throw refused(peer);
  const stranger = checkName(peer, peerName(socket)) ?? checkName(peer, options.peerNode);
  if (stranger !== undefined) throw refused(stranger);
  if (first.rest.length > 0) socket.unshift(first.rest);
  return new Link(socket, peer, { decoder: afterHello(first.decoder), outbox });
}

/** The server's answer, as far as it is for this VM and this kind of link. */
function serverHello(first: FirstMessage, ours: Hello): Hello | Refusal {
  if (first.type === linkTypes.refuse) {
    return { kind: 'hello', text: `refused this node: ${parseRefuse(first.payload)}` };
  }
  if (first.type !== linkTypes.hello) return { kind: 'hello', text: `answered with type ${first.type}, not a hello` };
  const hello = parseHello(first.payload);
  if (!('vm' in hello)) return hello;
  if (hello.vm !== ours.vm) return { kind: 'hello', text: `protects ${hello.vm}, not ${ours.vm}` };
  if (hello.kind !== ours.kind) return { kind: 'hello', text: `offers a ${hello.kind} link, not a ${ours.kind} link` };
  return hello;
}
