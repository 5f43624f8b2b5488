// QEMU's filter-rewriter as a black box, which is what stands before a secondary's guest in QEMU's own COLO: it
// translates what the client says to the guest's numbers and back. A machine that runs firmware and nothing else, with
// a card, and around the rewriter four redirectors to Unix sockets (filters are passed in their order towards the
// guest, and in the reverse order from it):
//
//   toGuest ──► in-client ──► rewriter ──► out-guest ──► what the guest gets
//   what leaves ◄── out-network ◄── rewriter ◄── in-guest ◄── fromGuest

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import type { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { delay, systemClock } from '../../src/base/clock.ts';
import { childEnvironment } from '../../src/base/environment.ts';
import { FrameParser } from '../../src/netdev/frame-parser.ts';
import { connectToQemu, packFrames } from './colo-compare.ts';

const names = ['in-client', 'out-network', 'out-guest', 'in-guest'] as const;
type Name = (typeof names)[number];

const answerTimeoutMs = 60_000;

export class FilterRewriter {
  /** What came out on either side since the last look. */
  readonly seen = { guest: [] as Uint8Array[], network: [] as Uint8Array[] };
  private readonly child: ChildProcess;
  private readonly directory: string;
  private readonly sockets = new Map<Name, Socket>();

  private constructor(child: ChildProcess, directory: string) {
    this.child = child;
    this.directory = directory;
  }

  static async start(): Promise<FilterRewriter> {
    const directory = mkdtempSync(join(tmpdir(), 'colo-rewriter-'));
    const child = spawn('qemu-system-x86_64', argumentsFor(directory), {
      stdio: ['ignore', 'ignore', 'inherit'],
      env: childEnvironment({}),
    });
    const rewriter = new FilterRewriter(child, directory);
    try {
      for (const name of names) rewriter.sockets.set(name, await connectToQemu(join(directory, name), child));
      rewriter.listen('out-guest', rewriter.seen.guest);
      rewriter.listen('out-network', rewriter.seen.network);
      return rewriter;
    } catch (error) {
      await rewriter.stop();
      throw error;
    }
  }

  /** A frame of the client; returns what the guest gets of it. */
  async client(frame: Uint8Array): Promise<Uint8Array> {
    return this.pass('in-client', frame, this.seen.guest);
  }

  /** A frame of the guest; returns what leaves of it. */
  async guest(frame: Uint8Array): Promise<Uint8Array> {
    return this.pass('in-guest', frame, this.seen.network);
  }

  async stop(): Promise<void> {
    for (const socket of this.sockets.values()) socket.destroy();
    if (this.child.exitCode === null && this.child.signalCode === null) {
      this.child.kill('SIGKILL');
      await once(this.child, 'exit');
    }
    rmSync(this.directory, { recursive: true, force: true });
  }

  private async pass(into: Name, frame: Uint8Array, out: Uint8Array[]): Promise<Uint8Array> {
    out.length = 0;
    this.sockets.get(into)?.write(packFrames([frame]));
    const deadline = systemClock.now() + answerTimeoutMs;
    for (;;) {
      const found = out.shift();
      if (found !== undefined) return found;
      if (systemClock.now() > deadline) throw new Error(`nothing came out of the rewriter for a frame at ${into}`);
      await delay(1);
    }
  }

  private listen(name: Name, into: Uint8Array[]): void {
    const parser = new FrameParser();
    this.sockets
      .get(name)
      ?.on('data', (chunk: Buffer) => void parser.push(chunk, (frame) => into.push(Uint8Array.from(frame))));
  }
}

function argumentsFor(directory: string): string[] {
  const chardevs = names.flatMap((name) => [
    '-chardev',
    `socket,id=${name},path=${join(directory, name)},server=on,wait=off`,
  ]);
  const redirector = (queue: 'tx' | 'rx', end: 'indev' | 'outdev', name: Name) => [
    '-object',
    `filter-redirector,id=f-${name},netdev=card,queue=${queue},${end}=${name}`,
  ];
  return [
    ...['-M', 'pc,accel=tcg', '-m', '16M', '-nodefaults', '-display', 'none', '-monitor', 'none'],
    ...['-netdev', 'user,id=card,restrict=on,ipv6=off', '-device', 'rtl8139,romfile=,netdev=card'],
    ...chardevs,
    ...redirector('tx', 'indev', 'in-client'),
    ...redirector('rx', 'outdev', 'out-network'),
    ...['-object', 'filter-rewriter,id=rewriter,netdev=card,queue=all'],
    ...redirector('tx', 'outdev', 'out-guest'),
    ...redirector('rx', 'indev', 'in-guest'),
  ];
}
