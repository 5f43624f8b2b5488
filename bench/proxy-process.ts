// The primary's proxy in a process of its own behind four Unix sockets, fed as colo-compare is: for `colo bench proxy`.
// Started with a folder as its argument, this file is that process; imported, it starts one.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createConnection, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { childEnvironment } from '../src/base/environment.ts';
import { FrameParser } from '../src/netdev/frame-parser.ts';
import { FrameSocket } from '../src/netdev/frame-socket.ts';
import { PrimaryProxy } from '../src/proxy/primary.ts';
import { portsTo } from './proxy-ports.ts';

const legs = ['primary', 'secondary', 'client', 'out'] as const;
type Leg = (typeof legs)[number];

export class ProxyProcess {
  private readonly child: ChildProcess;
  private readonly directory: string;
  private readonly sockets = new Map<Leg, Socket>();

  private constructor(child: ChildProcess, directory: string) {
    this.child = child;
    this.directory = directory;
  }

  static async start(released: () => void): Promise<ProxyProcess> {
    const directory = mkdtempSync(join(tmpdir(), 'colo-proxy-'));
    const child = spawn(process.execPath, [import.meta.filename, directory], {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: childEnvironment({}),
    });
    const proxy = new ProxyProcess(child, directory);
    await once(child.stdout ?? child, 'data');
    for (const leg of legs) {
      const socket = createConnection(join(directory, leg));
      await once(socket, 'connect');
      proxy.sockets.set(leg, socket);
    }
    const parser = new FrameParser();
    proxy.sockets.get('out')?.on('data', (chunk: Buffer) => void parser.push(chunk, released));
    return proxy;
  }

  get pid(): number {
    return this.child.pid ?? 0;
  }

  send(leg: 'primary' | 'secondary', packed: Buffer): boolean {
    return this.sockets.get(leg)?.write(packed) ?? false;
  }

  acknowledge(packed: Buffer): void {
    this.sockets.get('client')?.write(packed);
  }

  async stop(): Promise<void> {
    for (const socket of this.sockets.values()) socket.destroy();
    this.child.kill('SIGKILL');
    if (this.child.exitCode === null && this.child.signalCode === null) await once(this.child, 'exit');
    rmSync(this.directory, { recursive: true, force: true });
  }
}

async function serve(directory: string): Promise<void> {
  let out: FrameSocket | undefined;
  const proxy = new PrimaryProxy(
    portsTo((frame) => out?.send(frame)),
    { mode: 'colo', compareTimeoutMs: 1e9, patienceMs: 0 },
  );
  proxy.startMirroring();
  proxy.commit(proxy.capture(0).epoch, 0);
  let id = 0;
  const take: Record<Leg, (frame: Uint8Array) => void> = {
    primary: (frame) => proxy.fromGuest(frame, 0),
    secondary: (frame) => {
      id += 1;
      proxy.fromSecondary(1, id, frame, 0);
    },
    client: (frame) => proxy.fromNetwork(frame, 0),
    out: () => undefined,
  };
  for (const leg of legs) {
    await listen(join(directory, leg), (socket) => {
      const frames = new FrameSocket(socket, { frame: take[leg], closed: () => undefined });
      if (leg === 'out') out = frames;
    });
  }
  process.stdout.write('ready\n');
}

async function listen(path: string, accept: (socket: Socket) => void): Promise<Server> {
  const server = createServer(accept).listen(path);
  await once(server, 'listening');
  return server;
}

const [, main, directory] = process.argv;
if (main === import.meta.filename && directory !== undefined) await serve(directory);
