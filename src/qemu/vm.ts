// One QEMU process with all that COLO needs of it: monitor, mapped RAM, write tracking, capture and load.
//
//   primary    start -> makeTemplate (once) -> capture ... capture -> kill
//   secondary  start (paused, with the template) -> load -> resume -> stop -> load -> resume ... -> kill
//
// Capture, the only time the guest stands still:
//
//   node   stop + xen-save-devices-state (one write)      scan  copy   cont
//   QEMU        |--- stop ---|--- save ---|                            |-- cont --|
//               onStopped ---^            pages are listed and copied ^ beforeResume
//
// The pages are listed only after the devices are saved: saving may still write guest memory. `live: false`, because
// `true` makes QEMU close its block devices for the other side of a migration, and `cont` open them again.
// On every way out of a capture the guest runs (architecture.md, rule 4). When QEMU hangs, `cont` is already in its
// queue behind what it hangs on.

import { closeSync, ftruncateSync, openSync, readFileSync, realpathSync, writeFileSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { buildPreload } from '../../native/build.ts';
import { assert } from '../base/assert.ts';
import type { Clock } from '../base/clock.ts';
import { ColoError, errorCodes } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import { type PageRuns, pageSize } from '../base/page-runs.ts';
import { CapturePool } from './capture-pool.ts';
import { assertLoadable, Carrier, createCarrier, packTemplate, snapshotTag, unpackTemplate } from './carrier.ts';
import { chooseTracker } from './dirty/choose.ts';
import type { DirtyTracker, TrackerKind } from './dirty/tracker.ts';
import { runJob } from './job.ts';
import { type Mapping, mapFile } from './libc.ts';
import {
  capturePagesBytesFirst,
  commandTimeoutMs,
  killTimeoutMs,
  pingTimeoutMs,
  ramBytesMax,
  startTimeoutMs,
} from './limits.ts';
import { diskNode, keptNodes, type MachineSpec, qemuArguments, type VmFiles, vmstateNode } from './machine.ts';
import { createOverlay } from './overlay.ts';
import { type ProcessEnd, QemuProcess } from './process.ts';
import { Qmp } from './qmp.ts';
import { ramAddress } from './ram-address.ts';
import { assertCovered, parseRamBlocks } from './ram-blocks.ts';
import { RunDirectory } from './run-directory.ts';

export interface VmTimeouts {
  /** From starting the process to its first answered command. */
  startMs: number;
  /** Any later command. */
  commandMs: number;
}

export interface VmOptions {
  spec: MachineSpec;
  files: VmFiles;
  /** Do not run the guest yet. */
  paused: boolean;
  /** Secondary: what makeTemplate() returned on the primary. */
  vmstateTemplate?: Uint8Array;
  tracker?: TrackerKind | 'auto';
  log: Log;
  clock: Clock;
  qemuPath?: string;
  timeouts?: Partial<VmTimeouts>;
  /** Ends a start that is under way; a started VM ends with kill(). */
  signal?: AbortSignal;
}

export interface CapturePhases {
  stopMs: number;
  saveMs: number;
  scanMs: number;
  copyMs: number;
  resumeMs: number;
  /** The whole: from sending `stop` to the reply to `cont`, so a little more than the guest stood still. */
  pauseMs: number;
}

export interface Capture {
  deviceState: Uint8Array;
  runs: PageRuns;
  /** Contents of `runs`, one after the other. Valid until release(). */
  pages: Buffer;
  release(): void;
  phases: CapturePhases;
  dirtyPages: number;
  dirtyRuns: number;
}

export interface CaptureOptions {
  /** The guest stands still; called before anything restarts it. */
  onStopped: () => void;
  /**
   * Called between the two: takes what the machine sent before it stopped. False: it may not be done with sending, and the
   * devices are saved again, until this says true.
   */
  isQuiet?: () => boolean;
  /** Everything is captured; called right before the guest is restarted, which waits for it. */
  beforeResume?: () => unknown;
}

const oldestQemu = { major: 7, minor: 2 };

interface Parts {
  directory: RunDirectory;
  process: QemuProcess;
  qmp: Qmp;
  mapping: Mapping;
  tracker: DirtyTracker;
  carrier: Carrier | undefined;
  qemuVersion: string;
}

export class Vm {
  readonly exited: Promise<ProcessEnd>;
  readonly qemuVersion: string;
  readonly #options: VmOptions;
  readonly #parts: Parts;
  readonly #pool = new CapturePool();
  #capturing = false;
  #killed: Promise<void> | undefined;
  #jobs = 0;

  private constructor(options: VmOptions, parts: Parts) {
    this.#options = options;
    this.#parts = parts;
    this.exited = parts.process.exited;
    this.qemuVersion = parts.qemuVersion;
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

  /** Guest RAM itself, read-write. Empty after kill(). */
  get ram(): Buffer {
    return this.#parts.mapping.buffer;
  }

  get tracker(): DirtyTracker {
    return this.#parts.tracker;
  }

  /** Makes the carrier's template for the secondary. The guest stands still for some 6 ms. */
  async makeTemplate(): Promise<Uint8Array> {
    await this.#job('snapshot-save');
    return packTemplate(this.#options.files.vmstatePath);
  }

  async capture(options: CaptureOptions): Promise<Capture> {
    assert(!this.#capturing, 'a capture began while another one was running');
    this.#capturing = true;
    try {
      return await this.#capture(options);
    } finally {
      this.#capturing = false;
    }
  }

  /** Replaces device and CPU state. The VM must be stopped; RAM must already be right. */
  async load(deviceState: Uint8Array): Promise<{ loadMs: number }> {
    const { carrier } = this.#parts;
    if (carrier === undefined) throw new ColoError(errorCodes.checkpoint, 'This VM was started without a template.');
    const started = this.#options.clock.now();
    carrier.write(deviceState);
    try {
      await this.#job('snapshot-load');
    } catch (cause) {
      // What does not fit, QEMU tells its standard error alone.
      const { stderr } = this.#parts.process;
      if (stderr === '') throw cause;
      throw new ColoError(errorCodes.qemu, `QEMU said: ${stderr.split('\n').slice(-2).join(' ')}`, { cause });
    }
    return { loadMs: this.#options.clock.now() - started };
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

  async resume(): Promise<void> {
    await this.qmp.execute('cont');
  }

  /** Kills QEMU and removes everything it left. Safe to call again. */
  kill(): Promise<void> {
    this.#killed ??= this.#kill();
    return this.#killed;
  }

  async #kill(): Promise<void> {
    const { directory, process, qmp, mapping, tracker, carrier } = this.#parts;
    qmp.close();
    process.kill();
    try {
      await goneWithin(process, this.#options.clock);
    } finally {
      tracker.close();
      mapping.close();
      carrier?.close();
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

  #overlays(): string[] {
    const disks = this.#options.files.disks ?? [];
    return disks.flatMap((disk, index) => (disk.kind === 'overlay' ? [diskNode(index)] : []));
  }

  async #capture({ onStopped, beforeResume, isQuiet = () => true }: CaptureOptions): Promise<Capture> {
    const now = () => this.#options.clock.now();
    const { qmp, tracker } = this.#parts;
    const taken: { runs?: PageRuns; pages?: Buffer } = {};
    await this.#reservePages();
    const times = [now()];
    const [stopped, saved] = qmp.executeTogether([{ execute: 'stop' }, this.#saveCommand()]);
    // Awaited below; a failure of `stop` must not leave this one unhandled.
    saved?.catch(() => undefined);
    try {
      await stopped;
      times.push(now());
      let quiet = isQuiet();
      if (quiet) onStopped();
      await saved;
      while (!quiet) {
        const { execute, arguments: again } = this.#saveCommand();
        await qmp.execute(execute, again);
        quiet = isQuiet();
        if (quiet) onStopped();
      }
      times.push(now());
      const runs = tracker.collect();
      taken.runs = runs;
      times.push(now());
      taken.pages = this.#pool.take(runs.bytes);
      copyRuns(this.ram, runs, taken.pages);
      times.push(now());
      await beforeResume?.();
    } catch (error) {
      this.#abandon(taken);
      await this.#resumeAfter(error);
      throw error;
    }
    try {
      await qmp.execute('cont');
      times.push(now());
      const deviceState = readFileSync(this.#options.files.deviceStatePath);
      assertLoadable(deviceState);
      return this.#captured(deviceState, taken.runs, taken.pages, times);
    } catch (error) {
      this.#abandon(taken);
      throw error;
    }
  }

  #captured(deviceState: Buffer, runs: PageRuns, pages: Buffer, times: readonly number[]): Capture {
    const spent = (from: number, to: number) => (times[to] ?? 0) - (times[from] ?? 0);
    let held = true;
    return {
      deviceState,
      runs,
      pages: pages.subarray(0, runs.bytes),
      release: () => {
        if (held) this.#pool.give(pages);
        held = false;
      },
      phases: {
        stopMs: spent(0, 1),
        saveMs: spent(1, 2),
        scanMs: spent(2, 3),
        copyMs: spent(3, 4),
        resumeMs: spent(4, 5),
        pauseMs: spent(0, 5),
      },
      dirtyPages: runs.pages,
      dirtyRuns: runs.runs,
    };
  }

  // Growing during the pause would touch every new page for the first time, some 3 ms for 1 MiB on a virtual host.
  // So the number of written pages is asked for while the guest still runs, with room for what it writes meanwhile.
  // Comparing is as slow as the scan itself: there the pause may grow the buffer.
  async #reservePages(): Promise<void> {
    const expected = this.tracker.kind === 'compare' ? 0 : this.tracker.count() * pageSize;
    const withRoom = Math.max(capturePagesBytesFirst, Math.ceil(expected * 1.25));
    await this.#pool.reserve(Math.min(withRoom, this.ram.length));
  }

  #saveCommand() {
    const filename = this.#options.files.deviceStatePath;
    return { execute: 'xen-save-devices-state', arguments: { filename, live: false } };
  }

  #abandon(taken: { runs?: PageRuns; pages?: Buffer }): void {
    if (taken.runs !== undefined) this.tracker.putBack(taken.runs);
    if (taken.pages !== undefined) this.#pool.give(taken.pages);
  }

  async #resumeAfter(error: unknown): Promise<void> {
    const resumed = this.qmp.execute('cont');
    if (error instanceof ColoError && error.code === errorCodes.qemuTimeout) {
      // QEMU hangs, so waiting again would only double the time. The command stands in its queue and runs when it wakes.
      resumed.catch(() => undefined);
      return;
    }
    await resumed.catch((cause: unknown) => {
      throw new ColoError(errorCodes.qemu, 'A checkpoint failed and the guest could not be resumed.', { cause });
    });
  }
}

/** Copies the pages of `runs` out of guest RAM, one after the other. */
export function copyRuns(ram: Buffer, runs: PageRuns, target: Buffer): void {
  const { bounds } = runs;
  let written = 0;
  for (let at = 0; at < bounds.length; at += 2) {
    written += ram.copy(target, written, bounds[at] ?? 0, bounds[at + 1] ?? 0);
  }
}

async function goneWithin(process: QemuProcess, clock: Clock): Promise<void> {
  const { promise, reject } = Promise.withResolvers<never>();
  const cancel = clock.after(killTimeoutMs, () =>
    reject(new ColoError(errorCodes.qemuTimeout, `QEMU (process ${process.pid}) survives SIGKILL.`)),
  );
  try {
    await Promise.race([process.exited, promise]);
  } finally {
    cancel();
  }
}

type Cleanups = (() => void | Promise<void>)[];

async function startParts(options: VmOptions): Promise<Parts> {
  const cleanups: Cleanups = [];
  try {
    return await startPartsInto(options, cleanups);
  } catch (error) {
    // Newest first: the process before the files it uses.
    for (const cleanup of cleanups.reverse()) await cleanup();
    throw error;
  }
}

async function startPartsInto(options: VmOptions, cleanups: Cleanups): Promise<Parts> {
  const { spec, files, log } = options;
  assertSize(spec);
  const preload = await buildPreload();
  if (preload.path === undefined) log.warn({ reason: preload.reason }, 'the preload library could not be compiled');
  options.signal?.throwIfAborted();
  const directory = RunDirectory.take(files, spec.ramBytes);
  cleanups.push(() => directory.release());
  await prepareFiles(options);
  const carrier = options.vmstateTemplate === undefined ? undefined : new Carrier(files.vmstatePath);
  cleanups.push(() => carrier?.close());
  const { process, qmp } = await launch(options, preload.path, cleanups);
  const qemuVersion = await checkVersion(qmp);
  const capabilities = [{ capability: 'x-ignore-shared', state: true }];
  await qmp.execute('migrate-set-capabilities', { capabilities });
  assertCovered(parseRamBlocks(await qmp.human('info ramblock')), spec.ramBytes);
  const mapping = mapFile(files.ramPath, spec.ramBytes);
  cleanups.push(() => mapping.close());
  const tracker = await openTracker(options, { process, qmp, mapping });
  log.info({ pid: process.pid, qemu: qemuVersion, tracker: tracker.kind }, 'QEMU runs');
  return { directory, process, qmp, mapping, tracker, carrier, qemuVersion };
}

function assertSize({ ramBytes }: MachineSpec): void {
  if (ramBytes > 0 && ramBytes <= ramBytesMax && ramBytes % 2 ** 20 === 0) return;
  throw new ColoError(errorCodes.input, `A guest cannot have ${ramBytes} bytes of RAM: a multiple of 1 MiB is needed.`);
}

async function prepareFiles({ spec, files, vmstateTemplate }: VmOptions): Promise<void> {
  const fd = openSync(files.ramPath, 'wx', 0o600);
  ftruncateSync(fd, spec.ramBytes);
  closeSync(fd);
  // QEMU truncates and rewrites this file; made here so that its mode is ours.
  writeFileSync(files.deviceStatePath, '', { mode: 0o600 });
  if (vmstateTemplate === undefined) await createCarrier(files.vmstatePath);
  else await unpackTemplate(vmstateTemplate, files.vmstatePath);
  for (const disk of files.disks ?? [])
    if (disk.kind === 'overlay') await createOverlay(disk.overlayPath, disk.replicaPath);
}

/** Starts the process and returns when it answers on the monitor. */
async function launch(
  options: VmOptions,
  preload: string | undefined,
  cleanups: Cleanups,
): Promise<{ process: QemuProcess; qmp: Qmp }> {
  const { spec, files, clock, signal } = options;
  const connection = await listenOnce(files.qmpPath);
  cleanups.push(connection.close);
  const process = new QemuProcess({
    path: options.qemuPath ?? 'qemu-system-x86_64',
    args: qemuArguments(spec, files, { paused: options.paused }),
    preload,
    ramPath: files.ramPath,
  });
  cleanups.push(() => {
    process.kill();
    return goneWithin(process, clock);
  });
  const failed = Promise.withResolvers<never>();
  const startMs = options.timeouts?.startMs ?? startTimeoutMs;
  const cancel = clock.after(startMs, () => failed.reject(startTimeout(startMs, process)));
  const abort = () =>
    failed.reject(new ColoError(errorCodes.qemu, 'Starting QEMU was given up.', { cause: signal?.reason }));
  signal?.addEventListener('abort', abort);
  const died = process.exited.then((end) => {
    throw startFailure(end);
  });
  try {
    const opened = connection.socket.then((socket) => openMonitor(socket, options, cleanups));
    opened.catch(() => undefined);
    const qmp = await Promise.race([afterDeath(opened, process), died, failed.promise]);
    return { process, qmp };
  } finally {
    cancel();
    signal?.removeEventListener('abort', abort);
    died.catch(() => undefined);
    connection.close();
  }
}

async function openMonitor(socket: Socket, options: VmOptions, cleanups: Cleanups): Promise<Qmp> {
  cleanups.push(() => void socket.destroy());
  const timeoutMs = options.timeouts?.commandMs ?? commandTimeoutMs;
  return Qmp.open(socket, { clock: options.clock, timeoutMs });
}

/** A dying QEMU closes the monitor first; what it wrote before it died says more than the closed connection. */
async function afterDeath(opened: Promise<Qmp>, process: QemuProcess): Promise<Qmp> {
  try {
    return await opened;
  } catch (error) {
    if (error instanceof ColoError && error.code === errorCodes.qemuTimeout) throw error;
    await process.exited;
    throw error;
  }
}

function startFailure(end: ProcessEnd): ColoError {
  const how = end.signal === null ? `exit code ${end.code}` : `signal ${end.signal}`;
  const lastLines = end.stderr.split('\n').slice(-3).join(' ');
  return new ColoError(errorCodes.qemu, `QEMU did not start: ${lastLines === '' ? how : lastLines}`, {
    hint: 'Check the kernel, the initrd and the extra arguments of the machine.',
  });
}

function startTimeout(startMs: number, process: QemuProcess): ColoError {
  const said = process.stderr === '' ? '' : ` It said: ${process.stderr.split('\n').slice(-3).join(' ')}`;
  return new ColoError(errorCodes.qemuTimeout, `QEMU did not start within ${startMs} ms.${said}`);
}

/** A listening Unix socket for exactly one connection. */
async function listenOnce(path: string): Promise<{ socket: Promise<Socket>; close: () => void }> {
  const server = createServer();
  const socket = new Promise<Socket>((resolve) => {
    server.once('connection', (connected) => {
      server.close();
      resolve(connected);
    });
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(path, resolve);
  }).catch((cause: unknown) => {
    throw new ColoError(errorCodes.host, `The monitor socket ${path} cannot be opened.`, { cause });
  });
  return { socket, close: () => void server.close() };
}

async function checkVersion(qmp: Qmp): Promise<string> {
  const reply = (await qmp.execute('query-version')) as { qemu?: { major?: number; minor?: number; micro?: number } };
  const { major = 0, minor = 0, micro = 0 } = reply.qemu ?? {};
  const version = `${major}.${minor}.${micro}`;
  if (major > oldestQemu.major || (major === oldestQemu.major && minor >= oldestQemu.minor)) return version;
  throw new ColoError(errorCodes.host, `QEMU ${version} is too old.`, { hint: 'Install QEMU 7.2 or later.' });
}

async function openTracker(
  options: VmOptions,
  parts: { process: QemuProcess; qmp: Qmp; mapping: Mapping },
): Promise<DirtyTracker> {
  const { pid } = parts.process;
  const maps = readFileSync(`/proc/${pid}/maps`, 'utf8');
  const answer = await parts.qmp.human('gpa2hva 0');
  const ram = parts.mapping.buffer;
  const address = ramAddress(maps, answer, realpathSync(options.files.ramPath), ram.length);
  return chooseTracker(options.tracker ?? 'auto', { pid, ramAddress: address, ram }, options.log);
}
