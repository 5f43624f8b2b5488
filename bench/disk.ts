// What protected disks cost. `colo bench disk` prints two tables, or JSON.
//
//   pause   one QEMU, mirrored into a sink and a replica of this process; 0, 1 and 64 MiB are written between two
//           captures through its monitor. The journal has the writes already, so the pause must not grow with them.
//   bank    PostgreSQL in the disk guest, every commit flushed: transfers per second and their latency, unprotected and
//           protected with both flush rules. Ratios are what carries over to another host.

import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buildDiskGuest, copyDisk } from '../guest/disk/build.ts';
import { delay, systemClock } from '../src/base/clock.ts';
import { ColoError, errorCodes } from '../src/base/errors.ts';
import { silentLog } from '../src/base/log.ts';
import { checkSpec } from '../src/config/spec.ts';
import { openBank, Teller } from '../src/demo/bank.ts';
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

interface BankCase {
  protection: string;
  perSecond: number;
  latencyMsP50: number;
}

const mebibyte = 1024 * 1024;
const sizeBytes = 256 * mebibyte;
const writtenMib = [0, 1, 64];
const bankSeconds = 8;

export async function benchDisk(options: DiskBenchOptions): Promise<void> {
  const print = options.print ?? ((text: string) => void process.stdout.write(text));
  const pauses: PauseCase[] = [];
  for (const where of ['/dev/shm', tmpdir()]) pauses.push(...(await pauseCases(where, options.rounds)));
  const bank: BankCase[] = [];
  for (const protection of ['none', 'local', 'replicated'] as const) bank.push(await bankCase(protection));
  if (options.json) return print(`${JSON.stringify({ pauses, bank }, null, 2)}\n`);
  print('written between captures    pause p50 / max     stop p50    complete    apply   (ms)\n');
  for (const one of pauses)
    print(
      `${one.where.padEnd(10)} ${String(one.writtenMib).padStart(4)} MiB        ${fixed(one.pauseMsP50)} / ${fixed(one.pauseMsMax)}   ${fixed(one.stopMsP50)}   ${fixed(one.completeMsP50)}   ${fixed(one.applyMsP50)}\n`,
    );
  const base = bank[0]?.perSecond ?? 1;
  for (const one of bank)
    print(
      `bank, ${one.protection.padEnd(11)} ${fixed(one.perSecond)} transfers/s (${(one.perSecond / base).toFixed(2)} x)  latency p50 ${fixed(one.latencyMsP50)} ms\n`,
    );
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
  const at = { qmp: vm.qmp, node: diskNode(0), name: 'disk0', socketPath, exportName: 'disk0' };
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
    // As a node does (primary-disks.ts).
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

/** Writes as a guest's device does; the image is flushed now and then, as a node does (primary-disks.ts). */
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

async function bankCase(protection: 'none' | 'local' | 'replicated'): Promise<BankCase> {
  const folder = mkdtempSync(join(tmpdir(), 'colo-bench-bank-'));
  const guest = await buildDiskGuest();
  const path = join(folder, 'disk.raw');
  await copyDisk(guest, path);
  const flush = protection === 'none' ? 'local' : protection;
  const spec = checkSpec(
    {
      vm: 'bench-disk',
      boot: { guest: 'demo' },
      machine: { memory: '320M' },
      disks: [{ path, format: 'raw', flush }],
      replicaFolder: join(folder, 'replica'),
      protect: { mode: protection === 'none' ? 'none' : 'colo' },
    },
    'the benchmark',
  );
  const [port = 0] = await freePorts(1);
  const forwards = [{ protocol: 'tcp' as const, hostPort: port, guestPort: guest.ports.postgres }];
  const boot = { kernel: guest.kernel, initrd: guest.initrd, cmdline: guest.cmdline };
  const pair = await LocalPair.start({ spec, boot, clock: systemClock, forwards });
  try {
    await consoleSays(pair.a, { text: 'colo-guest ready', path: `${pair.logDir}/a.serial`, timeoutMs: 120_000 });
    if (protection !== 'none') {
      await pair.startSecondary();
      await pair.until('protected', 120_000, (all) => all.some((one) => one.role === 'primary' && one.protected));
    }
    await openBank(port);
    const teller = await Teller.start(port, { number: 0, seed: 1, paceMs: 0 }, systemClock);
    await delay(bankSeconds * 1000);
    const report = await teller.finish(10_000);
    if (!report.ok) throw new ColoError(errorCodes.checkpoint, `the bank failed: ${report.detail}`);
    return { protection, perSecond: report.received / bankSeconds, latencyMsP50: report.latencyMsP50 ?? 0 };
  } finally {
    await pair.stop();
    rmSync(folder, { recursive: true });
  }
}

function median(values: readonly number[]): number {
  return values.toSorted((left, right) => left - right)[Math.floor(values.length / 2)] ?? 0;
}

function fixed(value: number): string {
  return value.toFixed(2).padStart(7);
}
