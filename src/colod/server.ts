// The service's API on its two doors: a Unix socket for local root, and TLS 1.3 for certificates of the cluster and
// tokens. Every request is one route of api/routes.ts; what is none, too large, or from nobody is refused and counted.

import { EventEmitter } from 'node:events';
import { chmod, rm } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createServer as createSecureServer } from 'node:https';
import { dirname } from 'node:path';
import { z } from 'zod';
import { readBody } from '../api/body.ts';
import { bodyBytesMax, connectionsMax, requestTimeoutMs, streamBacklogBytesMax, streamsMax } from '../api/limits.ts';
import { Refusal, refusalAnswer } from '../api/refusal.ts';
import { matchRoute, type Route, type RouteId } from '../api/routes.ts';
import { type Clock, systemClock } from '../base/clock.ts';
import { ColoError, errorCodes, errorText } from '../base/errors.ts';
import type { Identity, IdentitySource } from '../base/identity.ts';
import { parseJson } from '../base/json.ts';
import type { Log } from '../base/log.ts';
import { makeFolder } from '../base/make-folder.ts';
import { mayDo } from '../base/roles.ts';
import { Tally } from '../base/tally.ts';
import { followIdentity, tlsIdentity } from '../base/tls-identity.ts';
import { Door } from '../channel/door.ts';
import { guard } from '../channel/guard.ts';
import { authenticate, type Caller, localCaller, type RefusedCaller } from './authentication.ts';
import { callDoorLimits, streamPingMs } from './limits.ts';
import { openPaths } from './monitor.ts';
import type { PlainAnswer } from './monitor-answers.ts';
import { sendPlain } from './plain-door.ts';

export interface Call {
  params: Record<string, string>;
  query: unknown;
  body: unknown;
  caller: Caller;
}

export type Handlers = Record<Exclude<RouteId, 'events'>, (call: Call) => Promise<unknown>>;

export interface ServerOptions {
  socketPath: string;
  secure: { host: string; port: number; identity: IdentitySource; tokens: string | undefined };
  handlers: Handlers;
  /** Metrics and health (monitor.ts), beside the routes; `openPaths` of them to anybody. */
  monitor?: (path: string) => Promise<PlainAnswer | undefined>;
  /** Emits `changed` when a stream's readers may have to be told something. */
  events: EventEmitter;
  log: Log;
  clock?: Clock;
}

/** Why calls were refused. */
export type RefusedReason =
  | 'tls'
  | 'certificate'
  | 'token'
  | 'missing'
  | 'forbidden'
  | 'route'
  | 'size'
  | 'body'
  | 'rate'
  | 'busy';

export class ServiceServer {
  readonly refused: Partial<Record<RefusedReason, number>> = {};
  private readonly options: ServerOptions;
  private readonly clock: Clock;
  private readonly servers: Server[] = [];
  private readonly streams = new Set<ServerResponse>();
  private readonly tally: Tally;

  private constructor(options: ServerOptions) {
    this.options = options;
    this.clock = options.clock ?? systemClock;
    this.tally = new Tally(this.clock, (reason, count, newest) => {
      options.log.warn({ reason, count, text: newest }, 'calls were refused');
    });
  }

  static async listen(options: ServerOptions): Promise<ServiceServer> {
    const server = new ServiceServer(options);
    try {
      await server.listenSecure();
      await server.listenLocal();
      return server;
    } catch (error) {
      await server.close();
      throw error;
    }
  }

  get refusedCount(): number {
    return Object.values(this.refused).reduce((sum, count) => sum + count, 0);
  }

  /** The port of the TLS door. */
  get port(): number {
    const address = this.servers[0]?.address();
    return typeof address === 'object' && address !== null ? address.port : 0;
  }

  async close(): Promise<void> {
    this.tally.close();
    for (const stream of this.streams) stream.destroy();
    for (const server of this.servers.splice(0)) {
      server.closeAllConnections();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    }
  }

  private async listenSecure(): Promise<void> {
    const { host, port, identity: given, tokens } = this.options.secure;
    const identity = typeof given === 'function' ? given : () => given;
    const optionsOf = (now: Identity) => tlsIdentity(now, { withPeople: true });
    let look = () => undefined as void;
    const server = createSecureServer(
      {
        ...{ ...optionsOf(identity()), minVersion: 'TLSv1.3' },
        // Who shows none may have a token; who shows one that is not ours is told so (authentication.ts).
        ...{ requestCert: true, rejectUnauthorized: false, handshakeTimeout: requestTimeoutMs },
      },
      (request, response) =>
        void this.handle(request, response, () => {
          look();
          return authenticate(request, { tokensPath: tokens, ca: identity().ca });
        }),
    );
    server.maxConnections = connectionsMax;
    // Who is connected may be one who was revoked: everybody says anew who it is.
    look = followIdentity(server, identity, { optionsOf, changed: () => server.closeAllConnections() });
    server.on('tlsClientError', (cause, socket) => {
      socket.destroy();
      this.count('tls', errorText(cause));
    });
    server.on('drop', () => this.count('busy', 'too many connections'));
    guard(server, {
      ...{ door: new Door(callDoorLimits, this.clock.now()), clock: this.clock },
      isProven: (socket) => socket.authorized,
      refused: (verdict, address) => this.count(verdict, `connections from ${address} come too fast`),
    });
    await this.open(server, () => server.listen(port, host), `${host}:${port}`);
  }

  private async listenLocal(): Promise<void> {
    const { socketPath } = this.options;
    makeFolder(dirname(socketPath), 0o700);
    await rm(socketPath, { force: true });
    const server = createServer((request, response) => {
      void this.handle(request, response, () => localCaller);
    });
    // The file is made inside listen(), in this tick: nobody else can open it, and no other file is made under this
    // mask.
    const listen = () => {
      const mask = process.umask(0o177);
      try {
        server.listen(socketPath);
      } finally {
        process.umask(mask);
      }
    };
    await this.open(server, listen, socketPath);
    await chmod(socketPath, 0o600);
  }

  private async open(server: Server, listen: () => void, where: string): Promise<void> {
    server.headersTimeout = requestTimeoutMs;
    server.requestTimeout = requestTimeoutMs;
    this.servers.push(server);
    const listening = new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.once('listening', resolve);
    });
    listen();
    await listening.catch((cause: unknown) => {
      throw new ColoError(errorCodes.host, `cannot listen at ${where}`, {
        cause,
        hint: 'another colod may run on this host, or the address is none of it',
      });
    });
  }

  private async handle(
    request: IncomingMessage,
    response: ServerResponse,
    who: () => Caller | RefusedCaller,
  ): Promise<void> {
    try {
      if (await this.isMonitored(request, response, (path) => openPaths.has(path))) return;
      const caller = who();
      if (caller.kind === 'refused') {
        const detail = caller.detail === undefined ? '' : ` (${caller.detail})`;
        this.count(caller.reason, `${caller.text}${detail}, from ${request.socket.remoteAddress}`);
        throw new Refusal(401, errorCodes.input, caller.text, {
          hint: 'Give a certificate of this cluster (--identity), or a token (--token-file).',
        });
      }
      if (await this.isMonitored(request, response, () => true)) return;
      await this.serve(request, response, { caller, who });
    } catch (error) {
      sendError(response, error);
      // What it may still be sending is not read.
      if (!request.complete) request.destroy();
    }
  }

  /** Answers what is asked for monitoring, where that is `allowed`; false when it is something else. */
  private async isMonitored(
    request: IncomingMessage,
    response: ServerResponse,
    allowed: (path: string) => boolean,
  ): Promise<boolean> {
    const path = (request.url ?? '').split('?')[0] ?? '';
    if (request.method !== 'GET' || !allowed(path)) return false;
    const found = await this.options.monitor?.(path);
    if (found !== undefined) sendPlain(response, found);
    return found !== undefined;
  }

  private async serve(
    request: IncomingMessage,
    response: ServerResponse,
    { caller, who }: { caller: Caller; who: () => Caller | RefusedCaller },
  ): Promise<void> {
    const url = URL.parse(request.url ?? '/', 'http://colod') ?? new URL('http://colod/none');
    const match = matchRoute(request.method ?? '', url.pathname);
    if (match.kind !== 'route') throw this.noRoute(request, match);
    const { route, params } = match;
    this.refuseRole(route, caller);
    const query = this.check(route.query, Object.fromEntries(url.searchParams));
    const body = this.check(route.body, await this.bodyOf(request, route));
    if (route.id === 'events') return this.stream(response, caller, who);
    const { log } = this.options;
    if (route.method !== 'GET') log.info({ call: route.id, params, caller }, 'called');
    const result = await this.options.handlers[route.id]({ params, query, body, caller });
    send(response, 200, result);
  }

  private refuseRole(route: Route, { is, kind, name }: Caller): void {
    if (mayDo(is, route.needs)) return;
    const text =
      route.needs === 'node'
        ? `${route.id} is for nodes of the cluster, and ${name} is a ${kind} with the role ${is}`
        : `${route.id} needs the role ${route.needs}, and ${name} has ${is}`;
    throw this.refusal('forbidden', new Refusal(403, errorCodes.input, text));
  }

  private async bodyOf(request: IncomingMessage, route: Route): Promise<unknown> {
    const length = Number(request.headers['content-length'] ?? 0);
    const tooLarge = (cause?: unknown) =>
      this.refusal('size', new Refusal(413, errorCodes.input, `a body has at most ${bodyBytesMax} bytes`, { cause }));
    if (length > bodyBytesMax) throw tooLarge();
    const text = await readBody(request, bodyBytesMax).catch((error: unknown) => {
      throw error instanceof ColoError ? tooLarge(error) : error;
    });
    return route.body === undefined ? undefined : parseJson(text);
  }

  private check(schema: z.ZodType | undefined, value: unknown): unknown {
    if (schema === undefined) return undefined;
    const parsed = schema.safeParse(value);
    if (parsed.success) return parsed.data;
    const lines = parsed.error.issues.map((one) => `${one.path.map(String).join('.') || '(body)'}: ${one.message}`);
    throw this.refusal('body', new Refusal(400, errorCodes.input, lines.join('; ')));
  }

  private noRoute(request: IncomingMessage, match: { kind: 'method'; allowed: string[] } | { kind: 'none' }): Refusal {
    const what = `${request.method} ${request.url?.slice(0, 200)}`;
    const hint = match.kind === 'method' ? `it takes ${match.allowed.join(', ')}` : 'GET /openapi.json names all';
    const refusal = new Refusal(match.kind === 'method' ? 405 : 404, errorCodes.input, `there is no ${what}`, { hint });
    return this.refusal('route', refusal);
  }

  private refusal(reason: RefusedReason, refusal: Refusal): Refusal {
    this.count(reason, refusal.message);
    return refusal;
  }

  private count(reason: RefusedReason, text: string): void {
    this.refused[reason] = (this.refused[reason] ?? 0) + 1;
    this.tally.note(reason, text);
  }

  /** What /v1/cluster answers, now and whenever it is another. */
  private stream(response: ServerResponse, caller: Caller, who: () => Caller | RefusedCaller): void {
    if (this.streams.size >= streamsMax)
      throw this.refusal(
        'busy',
        new Refusal(429, errorCodes.host, `there are ${streamsMax} readers of events already`),
      );
    this.streams.add(response);
    const { events, handlers } = this.options;
    let told = '';
    const write = (text: string) => {
      if (response.writableLength > streamBacklogBytesMax) response.destroy();
      else response.write(text);
    };
    const tell = async () => {
      const text = JSON.stringify(await handlers.cluster({ params: {}, query: undefined, body: undefined, caller }));
      if (text === told || response.destroyed) return;
      told = text;
      write(`event: cluster\ndata: ${text}\n\n`);
    };
    const changed = () => void tell().catch(() => response.destroy());
    const cancel = this.clock.every(streamPingMs, () => {
      // Its token or certificate may have been taken away: asking looks at both.
      if (who().kind === 'refused') response.destroy();
      else write(': still here\n\n');
    });
    events.on('changed', changed);
    response.once('close', () => {
      cancel();
      events.off('changed', changed);
      this.streams.delete(response);
    });
    response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
    changed();
  }
}

function send(response: ServerResponse, status: number, body: unknown): void {
  if (response.headersSent) return;
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(JSON.stringify(body));
}

function sendError(response: ServerResponse, error: unknown): void {
  const { status, body } = refusalAnswer(error);
  response.setHeader('connection', 'close');
  send(response, status, body);
}
