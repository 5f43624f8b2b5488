// What unit tests of a node's parts stand on: a clock that is set, links in memory whose other end is the test, and a
// machine and a card without QEMU. They keep the promises of platform.ts as far as one part alone can see them.

import type { Clock } from '../../base/clock.ts';
import { ColoError, errorCodes } from '../../base/errors.ts';
import { PageRuns, pageSize } from '../../base/page-runs.ts';
import type { LinkHandlers, LinkKind } from '../../channel/link.ts';
import { openCompressor } from '../../checkpoint/compress.ts';
import { protectSchema } from '../../config/spec.ts';
import { RunTracker } from '../../qemu/dirty/tracker.ts';
import type { Capture, CaptureOptions } from '../../qemu/vm.ts';
import type { NodeConfig } from '../config.ts';
import type { GuestCard, GuestVm, PeerLink, Platform, VmEnd } from '../platform.ts';

/** Time goes on when the test says so. */
export class TestClock implements Clock {
  private time = 1000;
  private timers: { at: number; periodMs: number | undefined; action: () => void }[] = [];

  now(): number {
    return this.time;
  }

  after(delayMs: number, action: () => void): () => void {
    return this.add({ at: this.time + delayMs, periodMs: undefined, action });
  }

  every(periodMs: number, action: () => void): () => void {
    return this.add({ at: this.time + periodMs, periodMs, action });
  }

  /** Everything that is due in this time happens, and what comes of it at once. */
  async pass(ms: number): Promise<void> {
    const end = this.time + ms;
    for (let next = this.next(end); next !== undefined; next = this.next(end)) {
      this.time = Math.max(this.time, next.at);
      if (next.periodMs === undefined) this.timers = this.timers.filter((timer) => timer !== next);
      else next.at += next.periodMs;
      next.action();
      await turn();
    }
    this.time = end;
    await turn();
  }

  /** This process stands still for so long: what was due meanwhile has not happened yet. */
  stand(ms: number): void {
    this.time += ms;
  }

  private next(end: number) {
    const due = this.timers.filter(({ at }) => at <= end);
    return due.sort((a, b) => a.at - b.at)[0];
  }

  private add(timer: (typeof this.timers)[number]): () => void {
    this.timers.push(timer);
    return () => {
      this.timers = this.timers.filter((one) => one !== timer);
    };
  }
}

/** What was begun goes on as far as it can. */
export const turn = (): Promise<void> => new Promise((resolve) => void setImmediate(resolve));

/** This node's end of a link; the test is the peer. */
export class MemoryLink implements PeerLink {
  readonly peer: PeerLink['peer'];
  readonly ends = { local: '', remote: '' };
  readonly said: { type: number; payload: Buffer }[] = [];
  endedByPeer = false;
  farewell = '';
  /** With what words this node closed it. */
  goodbye: string | undefined;
  ended = false;
  private handlers: LinkHandlers | undefined;

  constructor(kind: LinkKind, from: { node: string; term: number }) {
    this.peer = { vm: 'web', kind, session: 's', ...from };
  }

  get types(): number[] {
    return this.said.map(({ type }) => type);
  }

  send(type: number, ...parts: Uint8Array[]): void {
    if (!this.ended) this.said.push({ type, payload: Buffer.concat(parts) });
  }

  start(handlers: LinkHandlers): void {
    this.handlers = handlers;
  }

  async drain(): Promise<void> {}

  close(why = ''): void {
    if (this.ended) return;
    this.goodbye = why;
    this.ended = true;
  }

  destroy(): void {
    this.ended = true;
  }

  /** The peer says this; the link may be over here. */
  hear(type: number, payload: Uint8Array = new Uint8Array()): void {
    this.handlers?.message(type, Buffer.from(payload));
  }

  /** The peer is gone, or this node's end has failed. */
  lose(byPeer: boolean): void {
    this.endedByPeer = byPeer;
    this.ended = true;
    this.handlers?.closed(new ColoError(errorCodes.channel, byPeer ? 'its process is gone' : 'damaged'));
  }
}

export type MemoryLinks = { [kind in LinkKind]: MemoryLink };

export function memoryLinks(node = 'b', term = 1): MemoryLinks {
  const of = (kind: LinkKind) => new MemoryLink(kind, { node, term });
  return { beat: of('beat'), packet: of('packet'), bulk: of('bulk') };
}

/** A machine of some pages whose guest writes what the test says. */
export class TestVm implements GuestVm {
  readonly pid = 1;
  readonly qemuVersion = '7.2.0';
  readonly ram: Buffer;
  readonly tracker: RunTracker;
  readonly exited: Promise<VmEnd>;
  readonly end: () => void;
  isRunning = true;
  /** Captures whose memory is still taken. */
  taken = 0;
  /** Awaited when the guest stands still, and may fail. */
  whileStopped: () => Promise<void> = () => Promise.resolve();
  answersPing: () => Promise<void> = () => Promise.resolve();
  private readonly dirty = new PageRuns();

  constructor(pages = 4) {
    this.ram = Buffer.alloc(pages * pageSize);
    const scan = ({ rearm }: { rearm: boolean }) => {
      const runs = new PageRuns();
      this.dirty.forEach((start, end) => runs.add(start, end));
      if (rearm) this.dirty.clear();
      return runs;
    };
    this.tracker = new RunTracker({ kind: 'userfaultfd', scan, close: () => undefined }, this.ram.length);
    const { promise, resolve } = Promise.withResolvers<VmEnd>();
    this.exited = promise;
    this.end = () => resolve({ code: null, signal: 'SIGKILL' });
  }

  /** The guest writes a page. */
  write(page: number, value: number): void {
    this.ram.fill(value, page * pageSize, (page + 1) * pageSize);
    this.dirty.add(page * pageSize, (page + 1) * pageSize);
  }

  async capture(options: CaptureOptions): Promise<Capture> {
    await options.beforeStop?.();
    this.isRunning = false;
    try {
      options.onStopped();
      await this.whileStopped();
      while (options.isQuiet?.() === false);
      await options.beforeResume?.();
      return this.collect();
    } finally {
      this.isRunning = true;
    }
  }

  private collect(): Capture {
    const runs = this.tracker.collect();
    const pages: Buffer[] = [];
    runs.forEach((start, end) => pages.push(Buffer.from(this.ram.subarray(start, end))));
    this.taken += 1;
    const steps = { stopMs: 0, saveMs: 0, scanMs: 0, copyMs: 0, resumeMs: 0, pauseMs: 1 };
    return {
      ...{ deviceState: Uint8Array.of(1, 2, 3), runs, pages: Buffer.concat(pages) },
      release: () => void (this.taken -= 1),
      phases: steps as unknown as Capture['phases'],
      ...{ dirtyPages: runs.pages, dirtyRuns: 1, clocksOf: undefined },
    };
  }

  makeTemplate = () => Promise.resolve(Uint8Array.of(7));
  load = () => Promise.resolve({ loadMs: 0 });
  condition = () => Promise.resolve({ runState: 'running', faults: [] });
  ping = () => this.answersPing();
  stop = async () => void (this.isRunning = false);
  resume = async () => void (this.isRunning = true);
  kill = async () => this.end();
  keepDisks = () => Promise.resolve();
}

/** A card whose machine takes everything at once. */
export class TestCard implements GuestCard {
  handler: ((frame: Uint8Array) => void) | undefined;
  readonly bytesIn = 0;
  readonly sent: Buffer[] = [];
  /** Whether the machine is known to have read all. */
  hasSettled: boolean | undefined = true;

  send(frame: Uint8Array): void {
    this.sent.push(Buffer.from(frame));
  }

  settled(): boolean | undefined {
    return this.hasSettled;
  }

  flush(): void {}
  drain(): void {}
  pause(): void {}
  async close(): Promise<void> {}
}

export const testConfig = (node = 'a'): NodeConfig => ({
  ...{ vm: 'web', node, role: 'primary', listen: { path: node } },
  peers: [{ node: 'b', address: { path: 'b' } }],
  machine: {
    ...{ machine: 'q35', accel: 'tcg', cpu: undefined, vcpus: 1, ramBytes: 4 * pageSize },
    ...{ kernel: undefined, initrd: undefined, cmdline: '', nics: [], serialLog: '', extraArgs: [] },
  },
  protect: protectSchema.parse({}),
  guest: { mac: '52:54:00:12:34:56', address: '10.0.2.15' },
  ...{ runDir: '', spillDir: '', identityFolder: undefined, qemuPath: undefined, armedBy: undefined },
  uplink: { kind: 'switch', path: '' },
  arbiter: { kind: 'folder', folder: '' },
});

/** What of a platform every part may use; the rest is the test's. */
export function testPlatform(rest: Partial<Platform> = {}): Platform {
  const compressor = openCompressor({ only: 'none' });
  const asked = () => {
    throw new Error('the test has no such thing');
  };
  return {
    ...{ connectUplink: asked, listenCard: asked, startVm: asked, diskSource: asked, openReplica: asked },
    ...{ hashFile: asked, openLinks: asked, acceptLinks: asked, openSpill: asked },
    ...{ compressor: () => compressor, hashRam: () => 'hash', turn, reached: () => undefined },
    ...rest,
  };
}

/** A frame of a protocol that nobody knows, so that it is compared as bytes. */
export function testFrame(value: number): Uint8Array {
  const frame = new Uint8Array(60).fill(value, 14);
  frame.set([2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x88, 0xb5]);
  return frame;
}
