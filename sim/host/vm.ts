// A virtual machine as src/qemu/vm.ts promises one: RAM with exact tracking of written pages, device state, capture,
// load, stop and resume, each with a delay and a chance to fail. And the node's end of its network card
// (src/node/real/nic.ts).
//
// The guest's clock stands still while the machine does. It travels in the device state, in a section `timer` like that
// of QEMU, so that the alignment of clocks runs too.
//
// Everything that it is asked fails from its death on; that it has ended is heard then or later, as of a real QEMU
// whose monitor closes before its process is reaped. One that hangs answers when it goes on, and a sign of life is not
// waited for longer than the product does.
//
// Loading writes pages of RAM (the reset of a real machine puts ROM images back), and the pages of a capture lie in a
// buffer that is overwritten when they are released: who reads them later reads rubbish.

import { crc32 } from 'node:zlib';
import { ColoError, errorCodes } from '../../src/base/errors.ts';
import { Fifo } from '../../src/base/fifo.ts';
import { PageRuns, pageSize } from '../../src/base/page-runs.ts';
import type { GuestCard, GuestVm } from '../../src/node/platform.ts';
import { copyRuns } from '../../src/qemu/capture-pages.ts';
import { RunTracker } from '../../src/qemu/dirty/tracker.ts';
import type { Condition } from '../../src/qemu/guard.ts';
import { pingTimeoutMs } from '../../src/qemu/limits.ts';
import type { Capture, CaptureOptions } from '../../src/qemu/vm.ts';
import { Guest, type GuestDisk, type GuestPorts, type GuestTraits } from '../guest/guest.ts';
import type { TcpState } from '../guest/tcp.ts';
import type { Wire } from '../guest/wire.ts';
import type { Random } from '../world/random.ts';
import type { Due, Schedule } from '../world/schedule.ts';
import type { SimDisk } from './disk.ts';
import type { SimProcess } from './process.ts';

export interface VmTimes {
  stopMs: number;
  saveMs: number;
  loadMs: number;
  startMs: number;
  /** From the card's socket to the guest, and back. */
  cardMs: number;
}

/** From the death of a QEMU to hearing of its end, where nothing else is said. */
const heardMsFirst = 0.2;

/** Faults of one machine: each is taken away when it has happened. */
export interface VmFaults {
  failCapture?: 'before' | 'stopped' | 'saved' | undefined;
  failLoad?: boolean | undefined;
  /** Until it is over. */
  failKeep?: boolean | undefined;
}

/** What the checkers see of machines. */
export interface VmObserver {
  /** The guest stands still and everything of this capture is fixed. */
  captured(vm: SimVm, captureId: number): void;
  /** A machine that was loaded runs from what it holds now. */
  resumedFrom(vm: SimVm, captureId: number): void;
  guestSaid(vm: SimVm, frame: Uint8Array, connection: TcpState | undefined): void;
}

export interface VmParts {
  name: string;
  ramBytes: number;
  schedule: Schedule;
  /** The node that owns it. */
  node: SimProcess;
  /** QEMU. */
  qemu: SimProcess;
  card: SimCard;
  random: Random;
  traits: GuestTraits;
  times: VmTimes;
  observer: VmObserver;
  captureIds: { next: number };
  disk?: SimDisk;
  /** Whom the guest calls. */
  calls?: NonNullable<GuestPorts['calls']> | undefined;
  wire: Wire;
  /** Whether no state loads on this host now. */
  loadsFail?: () => boolean;
}

export class SimVm implements GuestVm {
  readonly pid = 1;
  readonly qemuVersion = '10.0.0';
  readonly exited: Promise<{ code: number | null; signal: string | null }>;
  readonly tracker: RunTracker;
  readonly parts: VmParts;
  readonly guest: Guest;
  readonly faults: VmFaults = {};
  readonly startedAt: number;
  /** The capture that this machine was loaded with; 0: it booted. */
  loadedFrom = 0;
  running = false;
  private readonly memory: Buffer;
  private readonly written: Uint8Array;
  private readonly exit: (end: { code: number | null; signal: string | null }) => void;
  private clockMs = 0;
  private resumedAt = 0;
  private wakeUp: Due | undefined;
  private checkOnResume = false;
  private capturing = false;
  private heardMs = heardMsFirst;
  /** It did not answer for a while, since the last capture. */
  private hung = false;
  /** Its own disk is full: it stands still, and does not go on by itself. */
  private starved = false;
  /** What waits for the answer of a machine that hangs. */
  private readonly stuck = new Set<() => void>();

  constructor(parts: VmParts) {
    this.parts = parts;
    this.startedAt = parts.schedule.now;
    this.memory = Buffer.alloc(parts.ramBytes);
    this.written = new Uint8Array(parts.ramBytes / pageSize);
    const { promise, resolve } = Promise.withResolvers<{ code: number | null; signal: string | null }>();
    this.exited = promise;
    this.exit = resolve;
    this.tracker = new RunTracker(
      { kind: 'compare', scan: ({ rearm }) => this.scan(rearm), close: () => undefined },
      parts.ramBytes,
    );
    this.guest = new Guest(this.memory, parts.traits, {
      emit: (frame, connection) => this.emit(frame, connection),
      touch: (page) => this.touch(page),
      entropy: parts.random.fork('entropy'),
      wire: parts.wire,
      ...(parts.disk === undefined ? {} : { disk: this.diskPort(parts.disk) }),
      ...(parts.calls === undefined ? {} : { calls: parts.calls }),
    });
    parts.disk?.attach({ starved: () => this.starve(), waits: (resume) => this.waits(resume) });
    this.guest.boot();
    parts.card.attach(this);
    parts.qemu.onEnd(() => this.ended());
  }

  get ram(): Buffer {
    return this.memory;
  }

  get ramSum(): number {
    return crc32(this.memory);
  }

  get alive(): boolean {
    return this.parts.qemu.alive;
  }

  async makeTemplate(): Promise<Uint8Array> {
    await this.spend(this.parts.times.saveMs);
    return Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8);
  }

  async capture({ beforeStop, onStopped, beforeResume, isQuiet }: CaptureOptions): Promise<Capture> {
    if (this.capturing) throw new Error('bug: a capture began while another one was running');
    this.capturing = true;
    try {
      await beforeStop?.();
      // What a guest said that went on from a hang, and was stopped in the same instant, is before the line: the node
      // reads it first. Others have next to nothing waiting by then, and seeds mean what they meant.
      const drained = () => {
        while (this.hung && isQuiet?.() === false);
        this.hung = false;
        onStopped();
      };
      return await this.takeCapture(drained, beforeResume);
    } finally {
      this.capturing = false;
    }
  }

  private async takeCapture(onStopped: () => void, beforeResume: CaptureOptions['beforeResume']): Promise<Capture> {
    const { times, node, captureIds } = this.parts;
    const { clock } = node;
    const start = clock.now();
    await this.spend(times.stopMs);
    this.maybeFail('before');
    this.halt();
    await this.drained();
    const stoppedAt = clock.now();
    const captureId = captureIds.next++;
    let runs: PageRuns | undefined;
    let pages = Buffer.alloc(0);
    try {
      onStopped();
      this.maybeFail('stopped');
      await this.spend(times.saveMs);
      runs = this.tracker.collect();
      pages = Buffer.allocUnsafeSlow(runs.bytes);
      copyRuns(this.memory, runs, pages);
      this.maybeFail('saved');
      this.parts.observer.captured(this, captureId);
      await beforeResume?.();
    } catch (error) {
      if (runs !== undefined) this.tracker.putBack(runs);
      this.go();
      throw error;
    }
    const deviceState = encodeDevices(this.clockMs, captureId, this.guest.save());
    this.go();
    await this.spend(times.stopMs / 4);
    const all = pages;
    return {
      ...{ deviceState, runs, pages, dirtyPages: runs.pages, dirtyRuns: runs.runs, clocksOf: undefined },
      release: () => void all.fill(0xbd),
      phases: {
        ...{ stopMs: stoppedAt - start, saveMs: times.saveMs, scanMs: 0, copyMs: 0, resumeMs: 0 },
        pauseMs: clock.now() - start,
      },
    };
  }

  async load(deviceState: Uint8Array): Promise<{ loadMs: number }> {
    if (this.running) throw new Error('bug: a running machine was loaded');
    const { times, loadsFail } = this.parts;
    const { loadMs } = times;
    await this.spend(loadMs);
    if (loadsFail?.() === true) throw new ColoError(errorCodes.qemu, 'the state does not load (simulated)');
    if (this.faults.failLoad === true) {
      this.faults.failLoad = false;
      throw new ColoError(errorCodes.qemu, 'snapshot-load failed (simulated)');
    }
    const devices = decodeDevices(deviceState);
    if (devices === undefined) throw new ColoError(errorCodes.qemu, 'the device state cannot be loaded');
    this.parts.disk?.dropOverlay();
    this.guest.restore(devices.registers);
    this.guest.writeRom();
    this.clockMs = devices.clockMs;
    this.loadedFrom = devices.captureId;
    this.checkOnResume = true;
    return { loadMs };
  }

  async keepDisks(): Promise<void> {
    await this.spend(this.parts.times.stopMs / 4);
    if (this.faults.failKeep === true) throw new ColoError(errorCodes.qemu, 'blockdev-reopen failed (simulated)');
  }

  async stop(): Promise<void> {
    await this.spend(this.parts.times.stopMs);
    this.halt();
    await this.drained();
  }

  async resume(): Promise<void> {
    const isFresh = this.checkOnResume;
    if (isFresh) this.parts.observer.resumedFrom(this, this.loadedFrom);
    this.checkOnResume = false;
    this.go();
    if (isFresh) this.guest.restartWrites();
    await this.spend(this.parts.times.stopMs / 4);
  }

  async kill(): Promise<void> {
    this.parts.qemu.kill();
  }

  end(): void {
    this.parts.qemu.kill();
  }

  /** A write of the guest has found no room: QEMU stops the machine, and the write is tried again when it goes on. */
  private starve(): void {
    this.starved = true;
    this.halt();
  }

  /** Whether the machine waits for room on its own disk; `resume`: it is to try again. */
  private async waits(resume: boolean): Promise<boolean> {
    await this.spend(0.1);
    const waits = this.starved && !this.running;
    if (waits && resume) this.go();
    return waits;
  }

  /** QEMU dies by itself; its node hears of that end so much later. */
  die(heardMs = heardMsFirst): void {
    this.heardMs = heardMs;
    this.parts.qemu.kill();
  }

  /** Whether it would answer now. */
  get answers(): boolean {
    return this.alive && !this.parts.qemu.paused;
  }

  /** One that answers does so at once: so asking changes nothing of what a seed means. */
  async ping(): Promise<void> {
    if (this.answers) return;
    const { promise, reject } = Promise.withResolvers<never>();
    const late = () => reject(new ColoError(errorCodes.qemuTimeout, 'QEMU does not answer (simulated)'));
    const cancel = this.parts.node.clock.after(pingTimeoutMs, late);
    await Promise.race([this.answered(0), promise]).finally(cancel);
  }

  /** Its devices are always well; one that waits for its disk does not run. */
  async condition(): Promise<Condition> {
    await this.ping();
    return { runState: this.running ? 'running' : this.starved ? 'io-error' : 'paused', faults: [] };
  }

  /** A frame waits in the card's socket. */
  poke(): void {
    if (this.running) this.parts.schedule.after(0, () => this.parts.qemu.run(() => this.readCard()));
  }

  readCard(): void {
    if (!this.running) return;
    for (let frame = this.parts.card.takeForGuest(); frame !== undefined; frame = this.parts.card.takeForGuest())
      this.guest.frame(frame, this.guestNow());
    this.arm();
  }

  private guestNow(): number {
    return this.clockMs + (this.running ? this.parts.schedule.now - this.resumedAt : 0);
  }

  private halt(): void {
    if (!this.running) return;
    this.clockMs = this.guestNow();
    this.running = false;
    if (this.wakeUp !== undefined) this.wakeUp.action = undefined;
  }

  private go(): void {
    if (this.running || !this.alive) return;
    this.running = true;
    this.starved = false;
    this.resumedAt = this.parts.schedule.now;
    this.parts.disk?.resume();
    this.arm();
    this.poke();
  }

  /** A stop is done when every write of the guest is. */
  private async drained(): Promise<void> {
    while (this.parts.disk?.drained() === false) await this.spend(0.1);
  }

  private diskPort(disk: SimDisk): GuestDisk {
    return {
      sectors: disk.sectors,
      read: (sector) => disk.sector(sector),
      write: (first, data, done) =>
        disk.write(first, data, () => {
          done();
          if (this.running) this.arm();
        }),
    };
  }

  private arm(): void {
    if (this.wakeUp !== undefined) this.wakeUp.action = undefined;
    const waitMs = Math.max(0.01, this.guest.deadline() - this.guestNow());
    if (!Number.isFinite(waitMs)) return;
    this.wakeUp = this.parts.schedule.after(waitMs, () =>
      this.parts.qemu.run(() => {
        if (!this.running) return;
        this.guest.tick(this.guestNow());
        this.arm();
      }),
    );
  }

  private emit(frame: Uint8Array, connection: TcpState | undefined): void {
    this.parts.observer.guestSaid(this, frame, connection);
    this.parts.card.fromGuest(frame);
  }

  private touch(page: number): void {
    this.written[page] = 1;
  }

  private scan(rearm: boolean): PageRuns {
    if (!this.alive) throw new ColoError(errorCodes.qemu, 'QEMU is gone (simulated)');
    const runs = new PageRuns();
    for (let page = 0; page < this.written.length; page += 1) {
      if (this.written[page] === 1) runs.add(page * pageSize, (page + 1) * pageSize);
    }
    if (rearm) this.written.fill(0);
    return runs;
  }

  private maybeFail(when: 'before' | 'stopped' | 'saved'): void {
    if (!this.alive) throw new ColoError(errorCodes.qemu, 'QEMU is gone (simulated)');
    if (this.faults.failCapture !== when) return;
    this.faults.failCapture = undefined;
    throw new ColoError(errorCodes.qemu, `the capture failed (simulated, ${when})`);
  }

  private ended(): void {
    this.halt();
    const { schedule, node } = this.parts;
    for (const answer of this.stuck) node.run(answer);
    this.stuck.clear();
    schedule.after(this.heardMs, () => node.run(() => this.exit({ code: null, signal: 'SIGKILL' })));
  }

  /** Time that QEMU takes for a command. */
  private spend(ms: number): Promise<void> {
    return this.answered(ms * (0.6 + 0.8 * this.parts.random.next()));
  }

  /** A dead QEMU does not answer but with an error; one that hangs, when it goes on. */
  private answered(afterMs: number): Promise<void> {
    const { node, qemu } = this.parts;
    return new Promise((resolve, reject) => {
      const answer = () => {
        if (this.alive) resolve();
        else reject(new ColoError(errorCodes.qemu, 'QEMU is gone (simulated)'));
      };
      node.clock.after(afterMs, () => {
        if (!this.alive || !qemu.paused) return answer();
        this.hung = true;
        this.stuck.add(answer);
        qemu.run(() => {
          if (this.stuck.delete(answer)) node.run(answer);
        });
      });
    });
  }
}

/** The socket between a node and its QEMU's card. */
export class SimCard implements GuestCard {
  handler: ((frame: Uint8Array) => void) | undefined = undefined;
  private readonly node: SimProcess;
  private readonly delayMs: () => number;
  private vm: SimVm | undefined;
  /** To the guest: what has arrived at QEMU, and how much is still on its way there. */
  private readonly toGuest = new Fifo<Uint8Array>();
  private onWay = 0;
  private readonly fromGuestQueue = new Fifo<Uint8Array>();
  private deliveryDue = false;
  private paused = false;
  private closed = false;
  private lastArrival = 0;
  bytesIn = 0;

  constructor(node: SimProcess, delayMs: () => number) {
    this.node = node;
    this.delayMs = delayMs;
  }

  attach(vm: SimVm): void {
    this.vm = vm;
  }

  send(frame: Uint8Array): void {
    if (this.closed || !this.node.alive) return;
    const copy = Uint8Array.from(frame);
    const { schedule } = this.node;
    this.onWay += 1;
    this.lastArrival = Math.max(this.lastArrival, schedule.now + this.delayMs());
    schedule.at(this.lastArrival, () => {
      this.onWay -= 1;
      this.toGuest.push(copy);
      this.vm?.parts.qemu.run(() => this.vm?.readCard());
    });
  }

  flush(): void {}

  takeForGuest(): Uint8Array | undefined {
    return this.toGuest.shift();
  }

  fromGuest(frame: Uint8Array): void {
    if (this.closed) return;
    this.fromGuestQueue.push(frame);
    this.scheduleDelivery();
  }

  drain(): void {
    for (let frame = this.fromGuestQueue.shift(); frame !== undefined; frame = this.fromGuestQueue.shift()) {
      this.bytesIn += frame.length;
      this.handler?.(frame);
    }
  }

  settled(): boolean | undefined {
    return this.onWay === 0 && this.toGuest.length === 0;
  }

  pause(paused: boolean): void {
    this.paused = paused;
    if (!paused) this.scheduleDelivery();
  }

  async close(): Promise<void> {
    this.closed = true;
  }

  private scheduleDelivery(): void {
    if (this.deliveryDue || this.paused || this.fromGuestQueue.length === 0) return;
    this.deliveryDue = true;
    this.node.schedule.after(this.delayMs(), () =>
      this.node.run(() => {
        this.deliveryDue = false;
        if (!this.paused && !this.closed) this.drain();
      }),
    );
  }
}

// ---- device state, in QEMU's format as far as the product looks into it ----

const guestSection = 'guest';
const ticksPerMs = 2_500_000;

function encodeDevices(clockMs: number, captureId: number, registers: Uint8Array): Uint8Array {
  const timer = Buffer.alloc(24);
  timer.writeBigInt64BE(BigInt(Math.round(clockMs * ticksPerMs)), 0);
  timer.writeBigInt64BE(BigInt(Math.round(clockMs * 1e6)), 16);
  const guest = Buffer.alloc(8 + registers.length);
  guest.writeUInt32BE(captureId, 0);
  guest.writeUInt32BE(registers.length, 4);
  guest.set(registers, 8);
  const head = Buffer.alloc(8);
  head.writeUInt32BE(0x5145_564d, 0);
  head.writeUInt32BE(3, 4);
  return Buffer.concat([head, section(1, 'timer', 2, timer), section(2, guestSection, 1, guest), Buffer.of(0)]);
}

function section(id: number, name: string, version: number, content: Uint8Array): Buffer {
  const head = Buffer.alloc(6 + name.length + 8);
  head[0] = 4;
  head.writeUInt32BE(id, 1);
  head[5] = name.length;
  head.write(name, 6, 'latin1');
  head.writeUInt32BE(version, 6 + name.length + 4);
  const footer = Buffer.alloc(5);
  footer[0] = 0x7e;
  footer.writeUInt32BE(id, 1);
  return Buffer.concat([head, content, footer]);
}

/** The sections stand where `encodeDevices` puts them. */
function decodeDevices(state: Uint8Array): { clockMs: number; captureId: number; registers: Uint8Array } | undefined {
  const bytes = Buffer.from(state.buffer, state.byteOffset, state.length);
  const timerAt = 8 + 6 + 'timer'.length + 8;
  const guestAt = timerAt + 24 + 5 + 6 + guestSection.length + 8;
  if (bytes.length < guestAt + 8) return undefined;
  const length = bytes.readUInt32BE(guestAt + 4);
  if (bytes.length < guestAt + 8 + length) return undefined;
  const clockMs = Number(bytes.readBigInt64BE(timerAt + 16)) / 1e6;
  return {
    clockMs,
    captureId: bytes.readUInt32BE(guestAt),
    registers: bytes.subarray(guestAt + 8, guestAt + 8 + length),
  };
}

/** Which capture a device state is of. */
export function captureOf(deviceState: Uint8Array): number {
  return decodeDevices(deviceState)?.captureId ?? 0;
}
