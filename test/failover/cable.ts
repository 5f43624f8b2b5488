// The cables of two nodes to their network, in a test's hands: a node's uplink leads through a relay that can be
// pulled out, so that the node's socket is gone and cannot be opened again, and put in again. A cable keeps its port
// of the switch all its life, whatever becomes of the node: so a port stands for a node, and turns of speaking are
// counted as ever. Whole frames are passed on, what a pulled cable has of one in part is lost.
//
//    node ── uplink.sock ── cable ── lan.sock ── switch

import { mkdtempSync, rmSync } from 'node:fs';
import { connect, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { listenForFrames } from '../../src/netdev/endpoint.ts';
import { FrameSocket } from '../../src/netdev/frame-socket.ts';

class Cable {
  readonly path: string;
  private readonly far: FrameSocket;
  private near: FrameSocket | undefined;
  private server: Server | undefined;
  /** What is done to it is done in order. */
  private last: Promise<void>;

  constructor(path: string, lanPath: string) {
    this.path = path;
    this.far = new FrameSocket(connect(lanPath), {
      frame: (frame) => this.near?.send(frame),
      closed: () => undefined,
    });
    this.last = this.listen();
  }

  /** The node's socket is closed, and there is none to be opened. */
  pull(): Promise<void> {
    return this.next(async () => {
      this.server?.close();
      this.server = undefined;
      rmSync(this.path, { force: true });
      this.near?.close();
      this.near = undefined;
    });
  }

  plug(): Promise<void> {
    return this.next(async () => {
      if (this.server === undefined) await this.listen();
    });
  }

  async close(): Promise<void> {
    await this.pull();
    this.far.close();
  }

  private next(act: () => Promise<void>): Promise<void> {
    this.last = this.last.then(act);
    return this.last;
  }

  private async listen(): Promise<void> {
    this.server = await listenForFrames(this.path, (socket) => this.take(socket));
  }

  /** A node's process has one; the next process of that node begins when the one before is gone. */
  private take(socket: Socket): void {
    if (this.server === undefined) return void socket.destroy();
    const near = new FrameSocket(socket, {
      frame: (frame) => this.far.send(frame),
      closed: () => {
        if (this.near === near) this.near = undefined;
      },
    });
    this.near = near;
  }
}

/** `lanPathOf` is what the pair is told. */
export class Cables {
  private readonly all = new Map<string, Cable>();
  private readonly folder = mkdtempSync(join(tmpdir(), 'colo-cable-'));

  lanPathOf = (node: 'a' | 'b', lanPath: string): string => {
    const cable = this.all.get(node) ?? new Cable(join(this.folder, `${node}.sock`), lanPath);
    this.all.set(node, cable);
    return cable.path;
  };

  async pull(node: 'a' | 'b'): Promise<void> {
    await this.all.get(node)?.pull();
  }

  async plug(node: 'a' | 'b'): Promise<void> {
    await this.all.get(node)?.plug();
  }

  async close(): Promise<void> {
    for (const cable of this.all.values()) await cable.close();
    rmSync(this.folder, { recursive: true, force: true });
  }
}
