// One QEMU process with all that COLO needs of it: monitor, mapped RAM, write tracking, capture and load.
//
//   primary    start -> makeTemplate (once) -> capture ... capture -> kill
//   secondary  start (paused, with the template) -> load -> resume -> stop -> load -> resume ... -> kill
//
// Capture, the only time the guest stands still:
//
//   node   list, copy   stop          save, two turns (again until quiet)  scan  copy   cont
//   QEMU   guest runs   |--- stop ---|--- save ---|.|.|                                 |-- cont --|
//            beforeStop-^                       onStopped ---^   pages are listed and copied ^ beforeResume
//
// What was written until shortly before the stop is copied before it, when it is much (capture-pages.ts). The pages are
// listed only after the devices are saved: saving may still write guest memory. `live: false`, because `true` makes
// QEMU close its block devices for the other side of a migration, and `cont` open them again. On every way out of a
// capture, also a failed one, the guest runs again: a capture may cost a checkpoint, never the VM. When QEMU hangs,
// `cont` is already in its queue behind what it hangs on.

import { readFileSync } from 'node:fs';
import { setImmediate } from 'node:timers/promises';
import { assert } from '../base/assert.ts';
import { ColoError, errorCodes } from '../base/errors.ts';
import { during } from '../base/loop-watch.ts';
import type { PageRuns } from '../base/page-runs.ts';
import { CapturePages } from './capture-pages.ts';
import { type CapturePhases, phasesOf } from './capture-phases.ts';
import { CapturePool } from './capture-pool.ts';
import { assertLoadable, packTemplate, snapshotTag } from './carrier.ts';
import type { ClockPage } from './clock-page.ts';
import type { SerialConsole } from './console.ts';
import { alignClock } from './device-state.ts';
import type { DirtyTracker } from './dirty/tracker.ts';
import type { Condition } from './guard.ts';
import { runJob } from './job.ts';
import { commandTimeoutMs, deviceSavesMax, pingTimeoutMs } from './limits.ts';
import { diskNode, keptNodes, vmstateNode } from './machine.ts';
import type { MachineFacts } from './machine-facts.ts';
import type { ProcessEnd } from './process.ts';
import type { Qmp } from './qmp.ts';
import { goneWithin, startParts, type VmOptions, type VmParts } from './start.ts';

export interface Capture {
  deviceState: Uint8Array;
  runs: PageRuns;
  /** Contents of `runs`, one after the other. Valid until release(). */
  pages: Buffer;
  release(): void;
  phases: CapturePhases;
  dirtyPages: number;
  dirtyRuns: number;
  /**
   * The moment of our clock of which the guest's clocks in the device state are, where they run on during the pause
   * (KVM). Undefined: they stood still until the guest ran again.
   */
  clocksOf: number | undefined;
}

export interface CaptureOptions {
  /** Right before the guest is stopped, when what can be done while it runs is done. */
  beforeStop?: () => Promise<void>;
  /** The guest stands still and has nothing left to send; called before anything restarts it. */
  onStopped: () => void;
  /**
   * Takes what the machine has sent so far, and says whether that was nothing since the last call. Called when the
   * guest stands still, and then after every save of the devices, which is repeated until this says true. When it never
   * does, the capture fails and the guest goes on (deviceSavesMax).
   */
  isQuiet?: () => boolean;
  /** Everything is captured; called right before the guest is restarted, which waits for it. */
  beforeResume?: () => unknown;
}

export class Vm {
  readonly exited: Promise<ProcessEnd>;
  readonly qemuVersion: string;
  readonly facts: MachineFacts;
  readonly #options: VmOptions;
  readonly #parts: VmParts;
  readonly #pool = new CapturePool();
  #capturing = false;
  /** Resolves when no capture is running, and nothing else that stops the guest for a moment. */
  #moving: Promise<unknown> = Promise.resolve();
  #killed: Promise<void> | undefined;
  #jobs = 0;
  /** Device state was loaded since it ran last. */
  #isLoaded = false;
  /** The moment of the state that is loaded next, of CLOCK_MONOTONIC. */
  #clocksOfNs: bigint | undefined;

  private constructor(options: VmOptions, parts: VmParts) {
    this.#options = options;
    this.#parts = parts;
    this.exited = endOf(parts);
    this.qemuVersion = parts.qemuVersion;
    this.facts = parts.facts;
  }

  static async start(options: VmOptions): Promise<Vm> {
    return new Vm(options, await startParts(options));
  }

  get pid(): number {
    return this.#parts.process.pid;
  }

  get qmp(): Qmp {
    return this.#parts.qmp;
  }

  /** What the guest writes to its first serial port. */
  get console(): SerialConsole {
    return this.#parts.console;
  }

  /** Guest RAM itself, read-write. Empty after kill(). */
  get ram(): Buffer {
    return this.#parts.mapping.buffer;
  }

  get tracker(): DirtyTracker {
    return this.#parts.tracker;
  }

  /** Makes the carrier's template for the secondary. The guest stands still for some 6 ms. */
  async makeTemplate(): Promise<Uint8Array> {
    const { clockPage } = this.#parts;
    clockPage?.hold();
    try {
      await this.#job('snapshot-save');
    } finally {
      clockPage?.letGo();
    }
    return packTemplate(this.#options.files.vmstatePath);
  }

  async capture(options: CaptureOptions): Promise<Capture> {
    assert(!this.#capturing, 'a capture began while another one was running');
    this.#capturing = true;
    try {
      return await this.#inTurn(() => this.#capture(options));
    } finally {
      this.#parts.clockPage?.letGo();
      this.#capturing = false;
    }
  }

  /**
   * Does a command while the guest stands still and none of its writes is on the way to a disk. A machine that runs
   * stands still for that, some milliseconds; one that does not is left as it is. Waits for a capture that is running.
   */
  async whileStill(command: string, commandArguments: Record<string, unknown>): Promise<void> {
    const { qmp, clockPage } = this.#parts;
    const one = { execute: command, arguments: commandArguments };
    await this.#inTurn(async () => {
      const { runState } = await this.condition();
      const isRunning = runState === 'running';
      if (isRunning) clockPage?.hold();
      await Promise.all(qmp.executeTogether(isRunning ? [{ execute: 'stop' }, one, { execute: 'cont' }] : [one]));
    }).finally(() => clockPage?.letGo());
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#moving.then(work);
    this.#moving = done.catch(() => undefined);
    return done;
  }

  /** Replaces device and CPU state. The VM must be stopped; RAM must already be right. */
  async load(deviceState: Uint8Array): Promise<{ loadMs: number }> {
    const { carrier } = this.#parts;
    if (carrier === undefined) throw new ColoError(errorCodes.checkpoint, 'This VM was started without a template.');
    const started = this.#options.clock.now();
    carrier.write(deviceState);
    this.#logWords();
    this.#isLoaded = true;
    this.#parts.clockPage?.beforeLoad(this.#clocksOfNs);
    try {
      await this.#job('snapshot-load');
    } catch (cause) {
      // What does not fit, QEMU tells its standard error alone; its words may come a turn behind the job's end.
      await setImmediate();
      const stderr = this.#parts.process.takeStderr();
      if (stderr === '') throw cause;
      throw new ColoError(errorCodes.qemu, `QEMU said: ${stderr.split('\n').slice(-2).join(' ')}`, { cause });
    } finally {
      this.#parts.clockPage?.beforeLoad(undefined);
    }
    return { loadMs: this.#options.clock.now() - started };
  }

  /** Whether the machine runs, and what of it does not work (guard.ts). */
  condition(): Promise<Condition> {
    return this.#parts.guard.ask();
  }

  /** Rejects when QEMU does not answer its monitor within limits.pingTimeoutMs: it hangs, or is gone. */
  async ping(): Promise<void> {
    await this.#parts.qmp.execute('query-status', undefined, pingTimeoutMs);
  }

  /** From now on the overlays are the guest's truth: its flushes reach the disk again, and they may be folded. */
  async keepDisks(): Promise<void> {
    const disks = this.#options.files.disks ?? [];
    const options = disks.flatMap((disk, index) => (disk.kind === 'overlay' ? keptNodes(disk, index) : []));
    if (options.length > 0) await this.qmp.execute('blockdev-reopen', { options });
  }

  async stop(): Promise<void> {
    await this.qmp.execute('stop');
  }

  /**
   * The state that is loaded next is of this moment of our clock: the guest's clocks go on from then, exactly, when it
   * is loaded and resumed. False: this machine's cannot, and the state itself has to be moved (device-state.ts).
   */
  startClocksFrom(moment: number | undefined): boolean {
    if (this.#parts.clockPage === undefined) return false;
    const agoMs = moment === undefined ? undefined : this.#options.clock.now() - moment;
    const loadedNs =
      agoMs === undefined ? undefined : globalThis.process.hrtime.bigint() - BigInt(Math.round(agoMs * 1e6));
    // Before this host started there was no moment of its clock.
    this.#clocksOfNs = loadedNs !== undefined && loadedNs > 0n ? loadedNs : undefined;
    return true;
  }

  /** What was done to clocks that run on over pauses and start from their moment; undefined where they do not. */
  get clockCounts(): ClockPage['counts'] | undefined {
    return this.#parts.clockPage?.counts;
  }

  async resume(): Promise<void> {
    const { clockPage } = this.#parts;
    if (this.#clocksOfNs !== undefined) clockPage?.beforeStart(this.#clocksOfNs);
    // Nothing was loaded: it goes on from a stop.
    else if (!this.#isLoaded) clockPage?.hold();
    this.#clocksOfNs = undefined;
    this.#isLoaded = false;
    try {
      await this.qmp.execute('cont');
    } finally {
      clockPage?.letGo();
    }
  }

  /** Ends QEMU at once; what it was asked fails. What it used is freed by `kill`. */
  end(): void {
    this.#parts.process.kill();
  }

  /** Kills QEMU and removes everything it left. Safe to call again. */
  kill(): Promise<void> {
    this.#killed ??= this.#kill();
    return this.#killed;
  }

  async #kill(): Promise<void> {
    const { directory, process, qmp, mapping, tracker, carrier, console, clockPage } = this.#parts;
    qmp.close();
    process.kill();
    try {
      await goneWithin(process, this.#options.clock);
    } finally {
      tracker.close();
      mapping.close();
      carrier?.close();
      console.close();
      clockPage?.close();
      directory.release();
    }
  }

  async #job(command: 'snapshot-save' | 'snapshot-load'): Promise<void> {
    const id = `colo${this.#jobs++}`;
    // An overlay's snapshot of this tag is its empty beginning: loading throws away what the guest wrote since.
    const overlays = this.#overlays();
    const devices = command === 'snapshot-load' ? [vmstateNode, ...overlays] : [vmstateNode];
    const job = { 'job-id': id, tag: snapshotTag, vmstate: vmstateNode, devices };
    const timeoutMs = this.#options.timeouts?.commandMs ?? commandTimeoutMs;
    await runJob({ qmp: this.qmp, clock: this.#options.clock, timeoutMs, id, command, arguments: job });
  }

  /** What QEMU said on standard error until now has nothing to do with what it is asked next. */
  #logWords(): void {
    const words = this.#parts.process.takeStderr();
    if (words !== '') this.#options.log.warn({ qemu: words }, 'QEMU said');
  }

  #overlays(): string[] {
    const disks = this.#options.files.disks ?? [];
    return disks.flatMap((disk, index) => (disk.kind === 'overlay' ? [diskNode(index)] : []));
  }

  async #capture({ beforeStop, onStopped, beforeResume, isQuiet = () => true }: CaptureOptions): Promise<Capture> {
    const { clock, files } = this.#options;
    const { qmp, tracker, clockPage } = this.#parts;
    const pages = new CapturePages({ ram: this.ram, tracker, pool: this.#pool, turn: async () => setImmediate() });
    const times: number[] = [];
    let clockMoments: ClockPage['moments'];
    const lap = () => times.push(clock.now());
    try {
      await pages.prepare();
      await beforeStop?.();
    } catch (error) {
      pages.abandon();
      throw error;
    }
    try {
      lap();
      clockPage?.hold();
      await qmp.execute('stop');
      lap();
      clockMoments = clockPage?.moments;
      await this.#saveUntilQuiet(isQuiet);
      onStopped();
      lap();
      during('capture', () => pages.collect());
      lap();
      during('capture', () => pages.copy());
      lap();
      await beforeResume?.();
    } catch (error) {
      pages.abandon();
      await this.#resumeAfter(error);
      throw error;
    }
    try {
      await qmp.execute('cont');
      clockPage?.letGo();
      lap();
      const deviceState = readFileSync(files.deviceStatePath);
      assertLoadable(deviceState);
      const { runs, ...contents } = pages.merge();
      const counts = { dirtyPages: runs.pages, dirtyRuns: runs.runs };
      const clocksOf = this.#oneMoment(deviceState, clockMoments);
      return { deviceState, runs, ...contents, ...counts, clocksOf, phases: phasesOf(times) };
    } catch (error) {
      pages.abandon();
      throw error;
    }
  }

  async #saveUntilQuiet(isQuiet: () => boolean): Promise<void> {
    isQuiet();
    for (let saves = 0; saves < deviceSavesMax; saves++) {
      await this.#saveDevices();
      if (isQuiet()) return;
    }
    throw new ColoError(
      errorCodes.checkpoint,
      `A stopped guest still sent after ${deviceSavesMax} saves of its devices.`,
    );
  }

  /**
   * Saves the devices, and gives QEMU two more turns of its main loop: a card that had found its socket full sends on
   * as soon as there is room, also while the machine is stopped, and moves its rings in the guest's RAM as it does.
   * When nothing came of it in these turns, nothing is left to be sent, and RAM and devices are of one moment. (What is
   * pipelined runs in order, each command in a turn of its own.)
   */
  async #saveDevices(): Promise<void> {
    const filename = this.#options.files.deviceStatePath;
    const turn = { execute: 'query-status' };
    const save = { execute: 'xen-save-devices-state', arguments: { filename, live: false } };
    await Promise.all(this.qmp.executeTogether([save, turn, turn]));
  }

  /**
   * Where the clocks run on, the timers' was held shortly before the others were read: moves it there in the saved
   * state, so that all are of one moment, and returns that moment of our clock.
   */
  #oneMoment(deviceState: Buffer, moments: ClockPage['moments']): number | undefined {
    if (moments === undefined) return undefined;
    alignClock(deviceState, Number(moments.kvmclock - moments.timers) / 1e6, 0);
    return this.#options.clock.now() - Number(globalThis.process.hrtime.bigint() - moments.kvmclock) / 1e6;
  }

  async #resumeAfter(error: unknown): Promise<void> {
    const resumed = this.qmp.execute('cont');
    if (error instanceof ColoError && error.code === errorCodes.qemuTimeout) {
      // QEMU hangs, so waiting again would only double the time. The command stands in its queue and runs when it
      // wakes.
      resumed.catch(() => undefined);
      return;
    }
    await resumed.catch((cause: unknown) => {
      throw new ColoError(errorCodes.qemu, 'A checkpoint failed and the guest could not be resumed.', { cause });
    });
  }
}

/** Why it ends QEMU says on its monitor, whose end may be heard after that of the process. */
async function endOf({ process, qmp }: VmParts): Promise<ProcessEnd> {
  let byHost = false;
  qmp.on('SHUTDOWN', ({ data }) => {
    byHost ||= data.guest === false;
  });
  const end = await process.exited;
  await qmp.closed;
  return byHost ? { ...end, byHost } : end;
}
