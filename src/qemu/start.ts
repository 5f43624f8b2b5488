// Starting a QEMU: its files, the process, the monitor, mapped RAM and the tracker of written pages. All or nothing: a
// start that fails, hangs or is given up leaves no process and no file.
//
//   run directory -> RAM file, carrier, overlays -> process -> monitor -> version, RAM blocks, guard -> mapping ->
//   tracker

import { closeSync, ftruncateSync, openSync, readFileSync, realpathSync, writeFileSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { buildPreload } from '../../native/build.ts';
import { afterAwake, type Clock } from '../base/clock.ts';
import { ColoError, errorCodes } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import { Carrier, createCarrier, unpackTemplate } from './carrier.ts';
import { ClockPage } from './clock-page.ts';
import { SerialConsole } from './console.ts';
import { chooseTracker } from './dirty/choose.ts';
import type { DirtyTracker, TrackerKind } from './dirty/tracker.ts';
import { Guard } from './guard.ts';
import { type Mapping, mapFile, takeRoom } from './libc.ts';
import { commandTimeoutMs, killTimeoutMs, ramBytesMax, startTimeoutMs } from './limits.ts';
import { furtherBlocks, type MachineSpec, qemuArguments, type VmFiles } from './machine.ts';
import { type MachineFacts, readMachineFacts } from './machine-facts.ts';
import { createOverlay } from './overlay.ts';
import { type ProcessEnd, QemuProcess } from './process.ts';
import { Qmp } from './qmp.ts';
import { blockAddress, ramAddress } from './ram-address.ts';
import { assertCovered, parseRamBlocks, placeBlocks, placesText } from './ram-blocks.ts';
import { countIn } from './reply.ts';
import { RunDirectory } from './run-directory.ts';
import { prepareVariables } from './variables.ts';

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

const oldestQemu = { major: 7, minor: 2 };

/** What a started VM consists of. */
export interface VmParts {
  directory: RunDirectory;
  process: QemuProcess;
  qmp: Qmp;
  mapping: Mapping;
  tracker: DirtyTracker;
  guard: Guard;
  carrier: Carrier | undefined;
  console: SerialConsole;
  /** Holds QEMU's clock over pauses; none under TCG, where the guest's TSC stands with the guest. */
  clockPage: ClockPage | undefined;
  qemuVersion: string;
  facts: MachineFacts;
}

type Cleanups = (() => void | Promise<void>)[];

/** Starts QEMU; on an error nothing is left of it. */
export async function startParts(options: VmOptions): Promise<VmParts> {
  const cleanups: Cleanups = [];
  try {
    return await startPartsInto(options, cleanups);
  } catch (error) {
    // Newest first: the process before the files it uses.
    for (const cleanup of cleanups.reverse()) await cleanup();
    throw error;
  }
}

async function startPartsInto(options: VmOptions, cleanups: Cleanups): Promise<VmParts> {
  const { spec, files, log } = options;
  assertSize(spec);
  const preload = await buildPreload();
  if (preload.path === undefined) log.warn({ reason: preload.reason }, 'the preload library could not be compiled');
  options.signal?.throwIfAborted();
  const { placed, fileBytes } = placeBlocks(spec.ramBytes, furtherBlocks(spec));
  const directory = RunDirectory.take(files, fileBytes);
  cleanups.push(() => directory.release());
  await prepareFiles(options, fileBytes);
  const carrier = options.vmstateTemplate === undefined ? undefined : new Carrier(files.vmstatePath);
  cleanups.push(() => carrier?.close());
  const console = SerialConsole.open(files.consolePath, spec.serialLog);
  cleanups.push(() => console.close());
  const clockPage = spec.accel === 'kvm' ? new ClockPage(files.clockPath) : undefined;
  cleanups.push(() => clockPage?.close());
  const { process, qmp } = await launch(options, preload.path, cleanups);
  if (clockPage?.isHeard === false) throw withoutLibrary(preload.reason);
  const qemuVersion = await checkVersion(qmp);
  const facts = await readMachineFacts(qmp);
  const capabilities = [{ capability: 'x-ignore-shared', state: true }];
  await qmp.execute('migrate-set-capabilities', { capabilities });
  assertCovered(parseRamBlocks(await qmp.human('info ramblock')), spec.ramBytes, placed);
  const guard = await Guard.open(qmp, log);
  const mapping = mapFile(files.ramPath, fileBytes);
  cleanups.push(() => mapping.close());
  const tracker = await openTracker(options, { process, qmp, mapping });
  const warnings = process.takeStderr();
  if (warnings !== '') log.warn({ qemu: warnings }, 'QEMU said as it started');
  log.info({ qemuPid: process.pid, qemu: qemuVersion, tracker: tracker.kind, machine: facts.type }, 'QEMU runs');
  return { directory, process, qmp, mapping, tracker, guard, carrier, console, clockPage, qemuVersion, facts };
}

/** Under KVM the guest would lose every pause on its clocks, and a secondary's would be anywhere. */
function withoutLibrary(reason = 'this QEMU was started without what LD_PRELOAD names'): ColoError {
  return new ColoError(errorCodes.host, `Under KVM QEMU needs COLO's library, for the guest's clocks: ${reason}`, {
    hint: 'Install gcc and libc6-dev, take a QEMU that is no static program and no wrapper, or machine.accel: tcg.',
  });
}

function assertSize({ ramBytes }: MachineSpec): void {
  if (ramBytes > 0 && ramBytes <= ramBytesMax && ramBytes % 2 ** 20 === 0) return;
  throw new ColoError(errorCodes.input, `A guest cannot have ${ramBytes} bytes of RAM: a multiple of 1 MiB is needed.`);
}

/** The guest's RAM, all of it present: a guest that found its host's memory full later would be killed by it. */
async function makeRamFile({ dir, ramPath }: VmFiles, ramBytes: number): Promise<void> {
  const fd = openSync(ramPath, 'wx+', 0o600);
  try {
    ftruncateSync(fd, ramBytes);
    await takeRoom(fd, ramBytes);
  } catch (cause) {
    throw new ColoError(errorCodes.host, `${dir} has no room for ${ramBytes / 2 ** 20} MiB of guest RAM.`, {
      cause,
      hint: 'Enlarge the tmpfs, end what fills it, or give the guest less memory.',
    });
  } finally {
    closeSync(fd);
  }
}

async function prepareFiles({ spec, files, vmstateTemplate }: VmOptions, fileBytes: number): Promise<void> {
  await makeRamFile(files, fileBytes);
  // QEMU truncates and rewrites this file; made here so that its mode is ours.
  writeFileSync(files.deviceStatePath, '', { mode: 0o600 });
  if (vmstateTemplate === undefined) await createCarrier(files.vmstatePath);
  else await unpackTemplate(vmstateTemplate, files.vmstatePath);
  if (spec.firmware !== undefined && files.variablesPath !== undefined)
    prepareVariables(spec.firmware, files.variablesPath, vmstateTemplate !== undefined);
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
    blocks: placesText(placeBlocks(spec.ramBytes, furtherBlocks(spec)).placed),
    clockPath: spec.accel === 'kvm' ? files.clockPath : undefined,
  });
  cleanups.push(() => {
    process.kill();
    return goneWithin(process, clock);
  });
  const failed = Promise.withResolvers<never>();
  const startMs = options.timeouts?.startMs ?? startTimeoutMs;
  const cancel = afterAwake(clock, startMs, () => failed.reject(startTimeout(startMs, process)));
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

/** The version that QEMU names, as text; refuses one that is too old, or none. */
export async function checkVersion(qmp: Qmp): Promise<string> {
  const reply = (await qmp.execute('query-version')) as { qemu?: Record<string, unknown> | null } | null;
  const parts = reply?.qemu ?? {};
  const [major, minor, micro] = [countIn(parts['major']), countIn(parts['minor']), countIn(parts['micro'])];
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
  const path = realpathSync(options.files.ramPath);
  const { ramBytes } = options.spec;
  const { placed } = placeBlocks(ramBytes, furtherBlocks(options.spec));
  const blocks = placed.map((block) => ({ ...block, address: blockAddress(maps, path, block) }));
  const memory = [{ offset: 0, bytes: ramBytes, address: ramAddress(maps, answer, path, ramBytes) }, ...blocks];
  const underKvm = options.spec.accel === 'kvm';
  return chooseTracker(options.tracker ?? 'auto', { pid, parts: memory, ram, underKvm }, options.log);
}

/** Resolves when the killed process is gone; COLO_E_QEMU_TIMEOUT when it survives limits.killTimeoutMs. */
export async function goneWithin(process: QemuProcess, clock: Clock): Promise<void> {
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
