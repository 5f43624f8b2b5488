// A wire between two nodes that a test holds in its hands: a relay of the links' Unix socket that can stand still, be
// cut, or damage one byte. The nodes do not know that it is there.
//
//    node ── wire.sock ── relay ── link.sock ── node

import { mkdtempSync, rmSync } from 'node:fs';
import { createConnection, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** Both directions of the links to one node. */
export class Wire {
  /** A byte of the next chunk of at least this size, in either direction, is damaged; 0: of none. */
  damageFrom = 0;
  /** How many bytes were damaged so far. */
  damaged = 0;
  private readonly server: Server;
  private readonly sockets = new Set<Socket>();
  private stalled = false;

  constructor(path: string, target: string) {
    this.server = createServer((near) => this.join(near, createConnection(target)));
    this.server.listen(path);
  }

  /** Nothing passes until `flow`; nothing is lost. */
  stall(): void {
    this.stalled = true;
    for (const socket of this.sockets) socket.pause();
  }

  flow(): void {
    this.stalled = false;
    for (const socket of this.sockets) socket.resume();
  }

  /** Every connection ends. */
  cut(): void {
    for (const socket of this.sockets) socket.destroy();
  }

  close(): void {
    this.cut();
    this.server.close();
  }

  private join(near: Socket, far: Socket): void {
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      this.sockets.add(from);
      from.on('data', (chunk: Buffer) => {
        this.damage(chunk);
        if (to.write(chunk)) return;
        from.pause();
        to.once('drain', () => !this.stalled && from.resume());
      });
      from.on('end', () => to.end());
      from.on('error', () => to.destroy());
      from.on('close', () => {
        this.sockets.delete(from);
        to.destroy();
      });
      if (this.stalled) from.pause();
    }
  }

  private damage(chunk: Buffer): void {
    if (this.damageFrom === 0 || chunk.length < this.damageFrom) return;
    this.damageFrom = 0;
    this.damaged += 1;
    const at = chunk.length >> 1;
    chunk[at] = (chunk[at] ?? 0) ^ 0x10;
  }
}

/** Wires to both nodes of a pair; `reachAt` is what the pair is told. */
export class Wires {
  readonly all: Wire[] = [];
  private readonly folder = mkdtempSync(join(tmpdir(), 'colo-wire-'));

  reachAt = (node: 'a' | 'b', path: string): string => {
    const own = join(this.folder, `${node}${this.all.length}.sock`);
    this.all.push(new Wire(own, path));
    return own;
  };

  stall(): void {
    for (const wire of this.all) wire.stall();
  }

  flow(): void {
    for (const wire of this.all) wire.flow();
  }

  cut(): void {
    for (const wire of this.all) wire.cut();
  }

  damage(fromBytes: number): void {
    for (const wire of this.all) wire.damageFrom = fromBytes;
  }

  get damaged(): number {
    return this.all.reduce((sum, wire) => sum + wire.damaged, 0);
  }

  close(): void {
    for (const wire of this.all) wire.close();
    rmSync(this.folder, { recursive: true, force: true });
  }
}
