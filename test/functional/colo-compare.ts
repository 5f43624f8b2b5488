// QEMU's colo-compare as a black box, for tests and benchmarks: a QEMU without a machine, that stands still, with the
// comparer in a thread of its own and four Unix sockets, each a stream of frames with their length before them.
//
//    primary_in, secondary_in ──► colo-compare ──► outdev (what is released)
//                                      │ ▲
//                     "DO_CHECKPOINT"  ▼ │  "COLO_CHECKPOINT"
//                                   notify_dev

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { createConnection, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { delay } from '../../src/base/clock.ts';
import { childEnvironment } from '../../src/base/environment.ts';
import { FrameParser } from '../../src/netdev/frame-parser.ts';
import { announce } from '../../src/packet/arp.ts';

const names = ['primary', 'secondary', 'out', 'notify'] as const;
type Name = (typeof names)[number];

export interface ColoCompareHandlers {
  /** A frame was released; valid during the call. */
  released(frame: Uint8Array): void;
  /** The comparer asked for a checkpoint. */
  checkpointWanted(): void;
}

/** Frames as the sockets carry them. */
export function packFrames(frames: readonly Uint8Array[]): Buffer {
  const bytes = Buffer.allocUnsafe(frames.reduce((sum, frame) => sum + 4 + frame.length, 0));
  let at = 0;
  for (const frame of frames) {
    bytes.writeUInt32BE(frame.length, at);
    bytes.set(frame, at + 4);
    at += 4 + frame.length;
  }
  return bytes;
}

export class ColoCompare {
  private readonly child: ChildProcess;
  private readonly directory: string;
  private readonly sockets = new Map<Name, Socket>();

  private constructor(child: ChildProcess, directory: string) {
    this.child = child;
    this.directory = directory;
  }

  /** `compareTimeoutMs` is how long QEMU waits for the secondary's packet. */
  static async start(handlers: ColoCompareHandlers, compareTimeoutMs = 3000): Promise<ColoCompare> {
    const directory = mkdtempSync(join(tmpdir(), 'colo-compare-'));
    const child = spawn('qemu-system-x86_64', argumentsFor(directory, compareTimeoutMs), {
      stdio: ['ignore', 'ignore', 'inherit'],
      env: childEnvironment({}),
    });
    const compare = new ColoCompare(child, directory);
    try {
      for (const name of names) compare.sockets.set(name, await connectToQemu(join(directory, name), child));
    } catch (error) {
      await compare.stop();
      throw error;
    }
    await compare.untilAccepted(handlers);
    compare.listen('notify', () => handlers.checkpointWanted());
    return compare;
  }

  /**
   * A connection is there before QEMU has accepted it, and what QEMU would say before is lost. It passes ARP
   * uncompared.
   */
  private async untilAccepted(handlers: ColoCompareHandlers): Promise<void> {
    const probe = announce(Uint8Array.of(2, 0, 0, 0, 0, 1), 1);
    let isThrough = false;
    this.listen('out', (frame) => {
      if (probe.length !== frame.length || !Buffer.from(probe).equals(frame)) handlers.released(frame);
      isThrough = true;
    });
    while (!isThrough) {
      this.send('primary', packFrames([probe]));
      await delay(10);
    }
  }

  get pid(): number {
    return this.child.pid ?? 0;
  }

  /** Writes frames, packed by `packFrames`. */
  send(leg: 'primary' | 'secondary', packed: Buffer): boolean {
    return this.sockets.get(leg)?.write(packed) ?? false;
  }

  /** Tells the comparer that a checkpoint was taken: it releases everything. */
  checkpoint(): void {
    this.sockets.get('notify')?.write(packFrames([Buffer.from('COLO_CHECKPOINT')]));
  }

  async stop(): Promise<void> {
    for (const socket of this.sockets.values()) socket.destroy();
    if (this.child.exitCode === null && this.child.signalCode === null) {
      this.child.kill('SIGKILL');
      await once(this.child, 'exit');
    }
    rmSync(this.directory, { recursive: true, force: true });
  }

  private listen(name: Name, visit: (frame: Uint8Array) => void): void {
    const parser = new FrameParser();
    this.sockets.get(name)?.on('data', (chunk: Buffer) => void parser.push(chunk, visit));
  }
}

function argumentsFor(directory: string, compareTimeoutMs: number): string[] {
  const chardevs = names.flatMap((name) => [
    '-chardev',
    `socket,id=${name},path=${join(directory, name)},server=on,wait=off`,
  ]);
  const compare = [
    'colo-compare,id=compare,primary_in=primary,secondary_in=secondary,outdev=out,notify_dev=notify,iothread=thread',
    `compare_timeout=${compareTimeoutMs}`,
  ].join(',');
  const machine = ['-M', 'none', '-S', '-nodefaults', '-display', 'none', '-monitor', 'none'];
  return [...machine, ...chardevs, '-object', 'iothread,id=thread', '-object', compare];
}

/** Connects as soon as QEMU listens at `path`. */
export async function connectToQemu(path: string, child: ChildProcess): Promise<Socket> {
  for (;;) {
    if (child.exitCode !== null) throw new Error(`QEMU ended with ${child.exitCode} instead of listening at ${path}`);
    if (existsSync(path)) {
      const socket = createConnection(path);
      const isOpen = await new Promise<boolean>((resolve) => {
        socket.once('connect', () => resolve(true));
        socket.once('error', () => resolve(false));
      });
      if (isOpen) {
        socket.on('error', () => undefined);
        return socket;
      }
    }
    await delay(10);
  }
}
