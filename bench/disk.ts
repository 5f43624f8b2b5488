// What protected disks cost. `colo bench disk` prints three tables, or JSON.
//
//   pause   one QEMU, mirrored into a sink and a replica of this process; 0, 1 and 64 MiB are written between two
//           captures through its monitor. The journal has the writes already, so the pause must not grow with them.
//   bank    PostgreSQL in the disk guest, every commit flushed: transfers per second and their latency, unprotected and
//           protected with both flush rules. Ratios are what carries over to another host.
//   writes  in the same guests, without the bank: 1 MiB at a time in order and 4 KiB at a time anywhere, each done when
//           it is on the disk (guest-writes.ts). "mirrored" is one guest more: remus mode, where the secondary stands
//           still, with the longest interval there is, so that nearly nothing but the mirror and the journal is left.

import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buildDiskGuest, copyDisk } from '../guest/disk/build.ts';
import { delay, systemClock } from '../src/base/clock.ts';
import { ColoError, errorCodes } from '../src/base/errors.ts';
import { silentLog } from '../src/base/log.ts';
import { median } from '../src/base/quantile.ts';
import { checkSpec, type SpecInput } from '../src/config/spec.ts';
import { openBank, Teller } from '../src/demo/bank/bank.ts';
import { consoleSays } from '../src/demo/console.ts';
import { flushEveryBytes, settledBytes, settleMs } from '../src/disk/limits.ts';
import { diskMessages, parseMark } from '../src/disk/message.ts';
import { Replica } from '../src/disk/replica.ts';
import { DiskSink } from '../src/disk/sink.ts';
import { freePorts } from '../src/lan/gateway.ts';
import { LocalPair } from '../src/local/pair.ts';
import { NbdServer } from '../src/nbd/server.ts';
import { diskNode, vmFiles } from '../src/qemu/machine.ts';
import { Mirror } from '../src/qemu/mirror.ts';
import { Vm } from '../src/qemu/vm.ts';
import { guestWrites, type WriteFigures, writeParts } from './guest-writes.ts';

export interface DiskBenchOptions {
  /** Captures of each case. */
  rounds: number;
  json: boolean;
  print?: (text: string) => void;
}

interface PauseCase {
  where: string;
  writtenMib: number;
  pauseMsP50: number;
  pauseMsMax: number;
  stopMsP50: number;
  completeMsP50: number;
  applyMsP50: number;
}

type Protection = 'none' | 'mirrored' | 'local' | 'replicated';

interface GuestCase {
  protection: Protection;
  writes: WriteFigures[];
  /** Committed while the guest wrote. */
  checkpoints: number;
  bank: BankCase | undefined;
}

interface BankCase {
  perSecond: number;
  latencyMsP50: number;
}

const mebibyte = 1024 * 1024;
const sizeBytes = 256 * mebibyte;
const writtenMib = [0, 1, 64];
const bankSeconds = 8;
/** The guest's writes are repeated this often at most: minutes otherwise. */
const writeRoundsMax = 5;

export async function benchDisk(options: DiskBenchOptions): Promise<void> {
  const print = options.print ?? ((text: string) => void process.stdout.write(text));
  const pauses: PauseCase[] = [];
  for (const where of ['/dev/shm', tmpdir()]) pauses.push(...(await pauseCases(where, options.rounds)));
  const guests: GuestCase[] = [];
  const writeRounds = Math.min(options.rounds, writeRoundsMax);
  for (const protection of ['none', 'mirrored', 'local', 'replicated'] as const)
    guests.push(await guestCase(protection, writeRounds));
  if (options.json) return print(`${JSON.stringify({ pauses, guests }, null, 2)}\n`);
  print('written between captures    pause p50 / max     stop p50    complete    apply   (ms)\n');
  for (const one of pauses)
    print(
      `${one.where.padEnd(10)} ${String(one.writtenMib).padStart(4)} MiB        ${fixed(one.pauseMsP50)} / ` +
        `${fixed(one.pauseMsMax)}   ${fixed(one.stopMsP50)}   ${fixed(one.completeMsP50)}   ` +
        `${fixed(one.applyMsP50)}\n`,
    );
  for (const line of [...writeTable(guests), ...bankTable(guests)]) print(`${line}\n`);
}

function writeTable(guests: readonly GuestCase[]): string[] {
  const lines = [
    '',
    'writes in the guest       MiB/s    ratio   writes/s   latency p50 / p99 / max (ms)   checkpoints',
  ];
  for (const part of writeParts) {
    const figures = guests.map(({ writes }) => writes.find((each) => each.part === part));
    const base = figures[0]?.mibPerSecond ?? 0;
    for (const [index, guest] of guests.entries()) {
      const one = figures[index];
      if (one === undefined) continue;
      const ratio = `${(one.mibPerSecond / base).toFixed(2)} x`;
      const latency = `${fixed(one.latencyMsP50)} / ${fixed(one.latencyMsP99)} / ${fixed(one.latencyMsMax)}`;
      lines.push(
        `${part.padEnd(10)}, ${guest.protection.padEnd(10)} ${fixed(one.mibPerSecond)}   ${ratio}    ` +
          `${fixed(one.writesPerSecond)}   ${latency}      ${guest.checkpoints}`,
      );
    }
  }
  return lines;
}

function bankTable(guests: readonly GuestCase[]): string[] {
  const base = guests[0]?.bank?.perSecond ?? 1;
  const lines = guests.flatMap(({ protection, bank }) =>
    bank === undefined
      ? []
      : [
          `bank, ${protection.padEnd(11)} ${fixed(bank.perSecond)} transfers/s ` +
            `(${(bank.perSecond / base).toFixed(2)} x)  latency p50 ${fixed(bank.latencyMsP50)} ms`,
        ],
  );
  return ['', ...lines];
}

async function pauseCases(where: string, rounds: number): Promise<PauseCase[]> {
  const folder = mkdtempSync(join(where, 'colo-bench-disk-'));
  const runFolder = mkdtempSync('/dev/shm/colo-bench-run-');
  const image = join(folder, 'disk.raw');
  writeFileSync(image, '');
  truncateSync(image, sizeBytes);
  const files = vmFiles(join(runFolder, 'vm'), 0);
  const vm = await Vm.start({
    spec: {
      ...{ machine: 'q35', accel: 'tcg', cpu: undefined, vcpus: 1, ramBytes: 64 * mebibyte },
      ...{ kernel: undefined, initrd: undefined, cmdline: '', nics: [], extraArgs: [] },
      serialLog: join(folder, 'serial'),
    },
    files: { ...files, disks: [{ kind: 'image', path: image, format: 'raw' }] },
    paused: false,
    log: silentLog,
    clock: systemClock,
  });
  try {
    return await mirrored({ vm, folder, runFolder, image, where, rounds });
  } finally {
    await vm.kill();
    rmSync(folder, { recursive: true });
    rmSync(runFolder, { recursive: true });
  }
}

interface PauseBench {
  vm: Vm;
  folder: string;
  runFolder: string;
  image: string;
  where: string;
  rounds: number;
}

async function mirrored(bench: PauseBench): Promise<PauseCase[]> {
  const { vm, folder, runFolder } = bench;
  const replica = await Replica.begin({
    folder: join(folder, 'replica'),
    ...{ vm: 'bench', term: 1, session: { sizes: [sizeBytes], durable: false } },
    events: { held: (position) => sink.held(position), failed: (error) => fail(error) },
  });
  const sink = new DiskSink(
    {
      send: (type, ...parts) => deliver(replica, type, Buffer.concat(parts)),
      drain: () => Promise.resolve(),
    },
    { replicated: [false] },
  );
  const socketPath = join(runFolder, 'sink.sock');
  const server = await NbdServer.listen({
    path: socketPath,
    exports: [{ name: 'disk0', sizeBytes, readOnly: false, flush: false }],
    handle: (request, answer) => sink.request(0, request, answer),
  });
  const at = { vm, node: diskNode(0), name: 'disk0', socketPath, exportName: 'disk0' };
  const mirror = await Mirror.start({ ...at, failed: (why) => fail(new Error(why)) });
  try {
    await mirror.copied;
    const cases: PauseCase[] = [];
    let epoch = 0;
    for (const mib of writtenMib) cases.push(await pauseCase(bench, { mib, sink, replica, next: () => (epoch += 1) }));
    return cases;
  } finally {
    await mirror.cancel();
    await server.close();
    await replica.close();
  }
}

async function pauseCase(
  { vm, image, where, rounds }: PauseBench,
  { mib, sink, replica, next }: { mib: number; sink: DiskSink; replica: Replica; next: () => number },
): Promise<PauseCase> {
  const pauses: number[] = [];
  const stops: number[] = [];
  const completes: number[] = [];
  const applies: number[] = [];
  for (let round = 0; round < rounds; round += 1) {
    await write(vm, image, mib, round);
    // As a node does (node/primary/disks.ts).
    const end = systemClock.now() + settleMs;
    while (sink.backlogBytes >= settledBytes && systemClock.now() < end) await delay(1);
    const epoch = next();
    const capture = await vm.capture({ onStopped: () => void sink.mark(epoch) });
    capture.release();
    pauses.push(capture.phases.pauseMs);
    stops.push(capture.phases.stopMs);
    const captured = systemClock.now();
    await replica.complete(epoch);
    completes.push(systemClock.now() - captured);
    const complete = systemClock.now();
    await replica.apply(epoch);
    applies.push(systemClock.now() - complete);
  }
  return {
    where,
    writtenMib: mib,
    pauseMsP50: median(pauses),
    pauseMsMax: Math.max(...pauses),
    stopMsP50: median(stops),
    completeMsP50: median(completes),
    applyMsP50: median(applies),
  };
}

/** Writes as a guest's device does; the image is flushed now and then, as a node does (node/primary/disks.ts). */
async function write(vm: Vm, image: string, mib: number, round: number): Promise<void> {
  const file = await open(image, 'r');
  try {
    for (let at = 0; at < mib; at += 1) {
      const command = `write -P ${1 + (round % 200)} ${at}M 1M`;
      const said = await vm.qmp.human(`qemu-io -d /machine/peripheral/disk0/virtio-backend "${command}"`);
      if (/fail|error/i.test(said)) throw new ColoError(errorCodes.qemu, said);
      if (((at + 1) * mebibyte) % flushEveryBytes === 0) await file.datasync();
    }
  } finally {
    await file.close();
  }
}

function deliver(replica: Replica, type: number, payload: Buffer): void {
  if (type === diskMessages.record) return fail(replica.receive(payload));
  const mark = parseMark(payload);
  fail('epoch' in mark ? replica.mark(mark) : mark);
}

function fail(error: Error | undefined): void {
  if (error !== undefined) throw error;
}

function protectOf(protection: Protection): SpecInput['protect'] {
  if (protection === 'none') return { mode: 'none' };
  // Limits of the spec: captures are seldom, and none is forced by written pages.
  if (protection === 'mirrored') return { mode: 'remus', interval: '10s', dirtyMax: '4096M' };
  return { mode: 'colo' };
}

async function guestCase(protection: Protection, writeRounds: number): Promise<GuestCase> {
  const folder = mkdtempSync(join(tmpdir(), 'colo-bench-bank-'));
  const guest = await buildDiskGuest();
  const path = join(folder, 'disk.raw');
  await copyDisk(guest, path);
  const flush = protection === 'replicated' ? 'replicated' : 'local';
  const spec = checkSpec(
    {
      vm: 'bench-disk',
      boot: { guest: 'demo' },
      machine: { memory: '320M' },
      disks: [{ path, format: 'raw', flush }],
      replicaFolder: join(folder, 'replica'),
      protect: protectOf(protection),
    },
    'the benchmark',
  );
  const [port = 0, controlPort = 0] = await freePorts(2);
  const forwards = [
    { protocol: 'tcp' as const, hostPort: port, guestPort: guest.ports.postgres },
    { protocol: 'tcp' as const, hostPort: controlPort, guestPort: guest.ports.control },
  ];
  const boot = { kernel: guest.kernel, initrd: guest.initrd, cmdline: guest.cmdline };
  const pair = await LocalPair.start({ spec, boot, clock: systemClock, forwards });
  try {
    await consoleSays(pair.a, { text: 'colo-guest ready', path: `${pair.logDir}/a.serial`, timeoutMs: 120_000 });
    if (protection !== 'none') {
      await pair.startSecondary();
      await pair.until('protected', 120_000, (all) => all.some((one) => one.role === 'primary' && one.protected));
    }
    const checkpoints = async () => (await pair.primary())?.checkpoints?.count ?? 0;
    const before = await checkpoints();
    const consolePath = `${pair.logDir}/a.serial`;
    const writes = await guestWrites({ name: 'bench', rounds: writeRounds, controlPort, consolePath });
    const guestResult = { protection, writes, checkpoints: (await checkpoints()) - before };
    // A client that waits for each answer would only measure the interval.
    if (protection === 'mirrored') return { ...guestResult, bank: undefined };
    return { ...guestResult, bank: await bankCase(port) };
  } finally {
    await pair.stop();
    rmSync(folder, { recursive: true });
  }
}

async function bankCase(port: number): Promise<BankCase> {
  await openBank(port);
  const teller = await Teller.start(port, { number: 0, seed: 1, paceMs: 0 }, systemClock);
  await delay(bankSeconds * 1000);
  const report = await teller.finish(10_000);
  if (!report.ok) throw new ColoError(errorCodes.checkpoint, `the bank failed: ${report.detail}`);
  return { perSecond: report.received / bankSeconds, latencyMsP50: report.latencyMsP50 ?? 0 };
}

function fixed(value: number): string {
  return value.toFixed(2).padStart(7);
}
