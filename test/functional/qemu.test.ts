// src/qemu against the installed QEMU: a guest is captured while it runs, and goes on in a second QEMU.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmdirSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, type TestContext, test } from 'node:test';
import { delay, systemClock } from '../../src/base/clock.ts';
import { ColoError } from '../../src/base/errors.ts';
import { silentLog } from '../../src/base/log.ts';
import type { PageRuns } from '../../src/base/page-runs.ts';
import { alignClock, guestTime, tscTicksPerMs } from '../../src/qemu/device-state.ts';
import { ramHash } from '../../src/qemu/hash.ts';
import { deviceSavesMax } from '../../src/qemu/limits.ts';
import { type MachineSpec, vmFiles } from '../../src/qemu/machine.ts';
import type { VmOptions } from '../../src/qemu/start.ts';
import { type Capture, Vm } from '../../src/qemu/vm.ts';
import { lastBeat, memoryGuest } from './qemu-guest.ts';

const ramBytes = 128 * 2 ** 20;
const bootTimeoutMs = 240_000;
const machines: MachineSpec['machine'][] = ['pc', 'q35', 'microvm'];

const root = mkdtempSync('/dev/shm/colo-qemu-test-');
after(() => rmSync(root, { recursive: true, force: true }));

function newDir(): string {
  return mkdtempSync(join(root, 'vm-'));
}

/** Whether process `pid` is gone, or a zombie that holds nothing any more. */
function isGone(pid: number): boolean {
  try {
    return /^\d+ \(.*\) [ZX] /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));
  } catch {
    return true;
  }
}

/** Starts a VM that the test's end kills. */
async function startVm(context: TestContext, spec: MachineSpec, options: Partial<VmOptions> = {}): Promise<Vm> {
  const files = vmFiles(join(newDir(), 'run'), spec.nics.length);
  const cards = await Promise.all(files.nicPaths.map(listenForCard));
  const vm = await Vm.start({ spec, files, paused: false, log: silentLog, clock: systemClock, ...options });
  context.after(async () => {
    await vm.kill();
    await Promise.all(cards.map(({ server }) => new Promise((resolve) => server.close(resolve))));
  });
  await Promise.all(cards.map(({ connected }) => connected));
  return vm;
}

/** The node's end of a guest card; QEMU connects to it. */
async function listenForCard(path: string): Promise<{ server: Server; connected: Promise<void> }> {
  mkdirSync(dirname(path), { recursive: true });
  const server = createServer();
  const connected = new Promise<void>((resolve) => {
    server.on('connection', (socket) => {
      socket.on('error', () => undefined).resume();
      resolve();
    });
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  return { server, connected };
}

/** Waits until the guest has counted past `beat`. */
async function beatsPast(serialLog: string, beat: number): Promise<number> {
  const deadlineMs = systemClock.now() + bootTimeoutMs;
  while (!existsSync(serialLog) || lastBeat(serialLog) <= beat) {
    if (systemClock.now() > deadlineMs) {
      const said = existsSync(serialLog) ? readFileSync(serialLog, 'utf8').slice(-300) : '';
      throw new Error(`the guest did not count past ${beat}: ${said}`);
    }
    await delay(20);
  }
  return lastBeat(serialLog);
}

/** The secondary's side of a checkpoint, in its simplest form: RAM from a shadow, then the captured pages. */
class SecondarySide {
  readonly vm: Vm;
  readonly shadow = Buffer.alloc(ramBytes);
  constructor(vm: Vm) {
    this.vm = vm;
  }

  async apply(capture: Capture): Promise<void> {
    this.#restore(this.vm.tracker.collect());
    let at = 0;
    capture.runs.forEach((start, end) => {
      capture.pages.copy(this.shadow, start, at, at + end - start);
      capture.pages.copy(this.vm.ram, start, at, at + end - start);
      at += end - start;
    });
    await this.vm.load(capture.deviceState);
    this.#restore(this.vm.tracker.collect());
  }

  #restore(runs: PageRuns): void {
    runs.forEach((start, end) => this.shadow.copy(this.vm.ram, start, start, end));
  }
}

/** A capture, and the hash of guest RAM as it was while the guest stood still. */
async function captureWithHash(vm: Vm): Promise<{ capture: Capture; hash: string }> {
  let hash = '';
  const capture = await vm.capture({ onStopped: () => undefined, beforeResume: () => (hash = ramHash(vm.ram)) });
  return { capture, hash };
}

for (const machine of machines) {
  test(`${machine}: a captured guest goes on in a second QEMU, byte for byte, again and again`, async (context) => {
    const guest = await memoryGuest({ machine, ramBytes, pages: 300, periodMs: 30, dir: newDir() });
    const spec = { ...guest, nics: [{ mac: '52:54:00:00:00:01' }] };
    const primary = await startVm(context, spec);
    await beatsPast(spec.serialLog, 2);
    const secondarySpec = { ...spec, serialLog: join(newDir(), 'serial.log') };
    const vmstateTemplate = await primary.makeTemplate();
    const secondary = await startVm(context, secondarySpec, { paused: true, vmstateTemplate });
    const secondarySide = new SecondarySide(secondary);
    const beatBefore = lastBeat(spec.serialLog);
    for (let round = 0; round < 5; round++) {
      // Two counts: the first of them may have been half written before the capture of the last round.
      const beat = await beatsPast(spec.serialLog, lastBeat(spec.serialLog) + 1);
      const { capture, hash } = await captureWithHash(primary);
      if (round === 0) assert.deepEqual(capture.runs.bounds, [0, ramBytes]);
      if (round > 0) assert.ok(capture.dirtyPages >= 300 && capture.dirtyPages < 10_000, `${capture.dirtyPages} pages`);
      if (round > 0) await secondary.stop();
      await secondarySide.apply(capture);
      assert.equal(ramHash(secondary.ram), hash);
      assert.ok(secondary.ram.equals(secondarySide.shadow));
      capture.release();
      await secondary.resume();
      // It counts on from where the primary was captured, not from where it was itself.
      assert.ok((await beatsPast(secondarySpec.serialLog, beat)) > beat);
    }
    const first = [...readFileSync(secondarySpec.serialLog, 'utf8').matchAll(/beat (\d+)/g)][0];
    assert.ok(Number(first?.[1]) > beatBefore, 'the secondary booted instead of going on');
  });
}

/** The guest-physical address of the index with which a driver says what is there for the disk. */
async function availableIndexAt(vm: Vm): Promise<number> {
  const path = '/machine/peripheral/disk0/virtio-backend';
  const queue = await vm.qmp.execute('x-query-virtio-queue-status', { path, queue: 0 });
  assert.ok(typeof queue === 'object' && queue !== null && 'vring-avail' in queue);
  assert.ok(typeof queue['vring-avail'] === 'number' && queue['vring-avail'] > 0, 'the BIOS has set the disk up');
  return queue['vring-avail'] + 2;
}

test('a machine that lost a device with a load says so, and one that was not started does not run', async (context) => {
  const spec = await memoryGuest({ machine: 'q35', ramBytes, pages: 10, periodMs: 30, dir: newDir() });
  const [image, replica] = [join(newDir(), 'image'), join(newDir(), 'replica')];
  for (const path of [image, replica]) writeFileSync(path, Buffer.alloc(2 ** 20));
  const files = () => vmFiles(join(newDir(), 'run'), 0);
  const primary = await startVm(context, spec, {
    files: { ...files(), disks: [{ kind: 'image', path: image, format: 'raw' }] },
  });
  await beatsPast(spec.serialLog, 1);
  assert.deepEqual(await primary.condition(), { runState: 'running', faults: [] });
  const vmstateTemplate = await primary.makeTemplate();
  const secondary = await startVm(
    context,
    { ...spec, serialLog: join(newDir(), 'serial.log') },
    {
      ...{ paused: true, vmstateTemplate },
      files: { ...files(), disks: [{ kind: 'overlay', overlayPath: `${replica}.overlay`, replicaPath: replica }] },
    },
  );
  const side = new SecondarySide(secondary);
  const { capture } = await captureWithHash(primary);
  await side.apply(capture);
  assert.deepEqual((await secondary.condition()).faults, []);
  assert.notEqual((await secondary.condition()).runState, 'running');
  // The load is of rings that say something impossible.
  secondary.ram.writeUInt16LE(0x7fff, await availableIndexAt(primary));
  await secondary.load(capture.deviceState);
  assert.match((await secondary.condition()).faults.join(), /virtio-blk .* is broken/);
  // A further load of what is right makes it well again.
  await side.apply(capture);
  capture.release();
  await secondary.resume();
  assert.deepEqual(await secondary.condition(), { runState: 'running', faults: [] });
});

test('what QEMU said long ago is not given as the reason of a load that fails', async (context) => {
  const spec = await memoryGuest({ machine: 'q35', ramBytes, pages: 10, periodMs: 30, dir: newDir() });
  // A network that no card is on is a warning at the start.
  const warned = { ...spec, extraArgs: [...spec.extraArgs, '-netdev', 'hubport,id=lonely,hubid=7'] };
  const said: unknown[] = [];
  const log = { ...silentLog, warn: (...words: unknown[]) => void said.push(words) };
  const primary = await startVm(context, warned, { log });
  assert.match(JSON.stringify(said), /lonely has no peer/);
  const vmstateTemplate = await primary.makeTemplate();
  const { capture } = await captureWithHash(primary);
  const secondary = await startVm(
    context,
    { ...warned, vcpus: 2, serialLog: join(newDir(), 'log') },
    { vmstateTemplate },
  );
  await secondary.stop();
  await assert.rejects(secondary.load(capture.deviceState), (error) => {
    assert.ok(error instanceof ColoError);
    return !/lonely/.test(error.message);
  });
  capture.release();
});

test('the device state holds the guest clock, and QEMU runs on from a clock that was moved forward', async (context) => {
  const spec = await memoryGuest({ machine: 'q35', ramBytes, pages: 10, periodMs: 30, dir: newDir() });
  const primary = await startVm(context, spec);
  await beatsPast(spec.serialLog, 1);
  const vmstateTemplate = await primary.makeTemplate();
  const secondarySpec = { ...spec, serialLog: join(newDir(), 'serial.log') };
  const secondary = await startVm(context, secondarySpec, { paused: true, vmstateTemplate });
  const { capture } = await captureWithHash(primary);
  const ticksPerMs = tscTicksPerMs(capture.deviceState);
  assert.ok(ticksPerMs !== undefined && ticksPerMs > 100_000 && ticksPerMs < 10_000_000, `${ticksPerMs} ticks`);
  const before = guestTime(capture.deviceState);
  assert.ok(before !== undefined && alignClock(capture.deviceState, 40, ticksPerMs));
  await new SecondarySide(secondary).apply(capture);
  capture.release();
  const echoed = await secondary.capture({ onStopped: () => undefined });
  const loaded = guestTime(echoed.deviceState);
  // It stood still, apart from the moment between capture's `cont` here and its own `stop` before it.
  assert.ok(loaded !== undefined && loaded.clockNs >= before.clockNs + 40_000_000n);
  echoed.release();
  await beatsPast(secondarySpec.serialLog, lastBeat(spec.serialLog));
});

test('a capture that fails leaves the guest running, and its pages are reported again', async (context) => {
  const spec = await memoryGuest({ machine: 'q35', ramBytes, pages: 50, periodMs: 20, dir: newDir() });
  const files = vmFiles(join(newDir(), 'run'), 0);
  const vm = await startVm(context, spec, { files });
  await beatsPast(spec.serialLog, 1);
  (await vm.capture({ onStopped: () => undefined })).release();
  const broken = new Error('the caller failed');
  const fail = () => {
    throw broken;
  };
  await assert.rejects(vm.capture({ onStopped: fail }), broken);
  await beatsPast(spec.serialLog, lastBeat(spec.serialLog));
  await vm.stop();
  const countBefore = vm.tracker.count();
  await assert.rejects(vm.capture({ onStopped: () => undefined, beforeResume: fail }), broken);
  assert.ok(vm.tracker.count() >= countBefore);
  await beatsPast(spec.serialLog, lastBeat(spec.serialLog));
  // QEMU itself cannot save: a directory stands where its file should be.
  rmSync(files.deviceStatePath);
  mkdirSync(files.deviceStatePath);
  await assert.rejects(vm.capture({ onStopped: () => undefined }), {
    code: 'COLO_E_QEMU',
    message: /save-devices-state/,
  });
  rmdirSync(files.deviceStatePath);
  await beatsPast(spec.serialLog, lastBeat(spec.serialLog));
  const held = await vm.capture({ onStopped: () => undefined });
  vm.tracker.putBack(held.runs);
  assert.ok(vm.tracker.count() >= held.dirtyPages);
  held.release();
  assert.deepEqual(await vm.qmp.execute('query-status').then(isRunning), true);
});

test('a card that never stops sending costs that capture, and never holds the guest', async (context) => {
  const spec = await memoryGuest({ machine: 'q35', ramBytes, pages: 50, periodMs: 20, dir: newDir() });
  const vm = await startVm(context, spec);
  await beatsPast(spec.serialLog, 1);
  (await vm.capture({ onStopped: () => undefined })).release();
  await beatsPast(spec.serialLog, lastBeat(spec.serialLog));
  const asked: string[] = [];
  const sending = { onStopped: () => void asked.push('stopped'), isQuiet: () => asked.push('quiet?') < 0 };
  await assert.rejects(vm.capture(sending), { code: 'COLO_E_CHECKPOINT', message: /still sent after/ });
  // Once when it stands still, then after each save; no line was drawn in what the guest sent.
  assert.deepEqual(asked, Array<string>(1 + deviceSavesMax).fill('quiet?'));
  await beatsPast(spec.serialLog, lastBeat(spec.serialLog));
  // One that falls silent late is captured, with every page that was written before the attempt that failed.
  let turns = 0;
  const capture = await vm.capture({ onStopped: () => undefined, isQuiet: () => ++turns > deviceSavesMax });
  assert.ok(capture.dirtyPages >= 50, `${capture.dirtyPages} pages`);
  capture.release();
});

function isRunning(status: unknown): boolean {
  return typeof status === 'object' && status !== null && 'running' in status && status.running === true;
}

test('a hanging QEMU is a timeout, and the guest runs when it wakes', async (context) => {
  const spec = await memoryGuest({ machine: 'pc', ramBytes, pages: 10, periodMs: 20, dir: newDir() });
  const vm = await startVm(context, spec, { timeouts: { commandMs: 10_000 } });
  await beatsPast(spec.serialLog, 1);
  process.kill(vm.pid, 'SIGSTOP');
  await assert.rejects(vm.capture({ onStopped: () => undefined }), { code: 'COLO_E_QEMU_TIMEOUT', message: /"stop"/ });
  process.kill(vm.pid, 'SIGCONT');
  await beatsPast(spec.serialLog, lastBeat(spec.serialLog));
  (await vm.capture({ onStopped: () => undefined })).release();
  await beatsPast(spec.serialLog, lastBeat(spec.serialLog));
});

test('the death of QEMU is seen, and fails what was asked of it', async (context) => {
  const spec = await memoryGuest({ machine: 'microvm', ramBytes, pages: 10, periodMs: 20, dir: newDir() });
  const vm = await startVm(context, spec);
  process.kill(vm.pid, 'SIGKILL');
  await assert.rejects(vm.capture({ onStopped: () => undefined }), { code: 'COLO_E_QEMU' });
  assert.deepEqual(await vm.exited, { code: null, signal: 'SIGKILL', stderr: '' });
});

test('a QEMU that is sent a signal goes on; one that is told to end leaves like one whose guest shut down, and says that the guest did not', async (context) => {
  const spec = await memoryGuest({ machine: 'microvm', ramBytes, pages: 10, periodMs: 20, dir: newDir() });
  const vm = await startVm(context, spec);
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.kill(vm.pid, signal);
  await vm.resume();
  await beatsPast(spec.serialLog, 2);
  await vm.qmp.execute('quit');
  const { code, signal, byHost } = await vm.exited;
  assert.deepEqual([code, signal, byHost], [0, null, true]);
});

test('a killed VM leaves no process, no file and no memory', async (context) => {
  const spec = await memoryGuest({ machine: 'q35', ramBytes, pages: 10, periodMs: 20, dir: newDir() });
  const files = vmFiles(join(newDir(), 'run'), 0);
  const vm = await startVm(context, spec, { files, paused: true });
  const { pid, ram } = vm;
  const view = ram.subarray(4096, 8192);
  await assert.rejects(Vm.start({ spec, files, paused: true, log: silentLog, clock: systemClock }), {
    code: 'COLO_E_HOST',
    message: /belongs to process/,
  });
  await Promise.all([vm.kill(), vm.kill()]);
  assert.ok(isGone(pid) && !existsSync(files.dir));
  assert.equal(ram.length + view.length, 0);
  assert.ok(!readFileSync('/proc/self/maps', 'utf8').includes(files.ramPath));
  // The same directory serves the next VM.
  await startVm(context, spec, { files, paused: true });
});

test('QEMU that cannot start says why, and leaves nothing', async () => {
  const spec = await memoryGuest({ machine: 'q35', ramBytes, pages: 10, periodMs: 20, dir: newDir() });
  const files = vmFiles(join(newDir(), 'run'), 0);
  const options = { spec, files, paused: false, log: silentLog, clock: systemClock };
  const nvme = ['-drive', 'if=none,id=d,file.driver=null-co,format=raw', '-device', 'nvme,serial=a,drive=d'];
  const failures: [Partial<VmOptions>, { code: string; message: RegExp }][] = [
    [{ spec: { ...spec, kernel: '/nonexistent' } }, { code: 'COLO_E_QEMU', message: /did not start: .*nonexistent/ }],
    [{ spec: { ...spec, extraArgs: ['-bogus'] } }, { code: 'COLO_E_QEMU', message: /did not start: .*bogus/ }],
    [{ qemuPath: '/nonexistent-qemu' }, { code: 'COLO_E_QEMU', message: /ENOENT/ }],
    [{ qemuPath: '/bin/cat' }, { code: 'COLO_E_QEMU', message: /did not start/ }],
    [{ spec: { ...spec, extraArgs: ['-device', 'VGA'] } }, { code: 'COLO_E_MACHINE', message: /vga\.vram"/ }],
    [{ spec: { ...spec, extraArgs: nvme } }, { code: 'COLO_E_QEMU', message: /nvme is not migratable/ }],
    [{ vmstateTemplate: Buffer.from('nonsense') }, { code: 'COLO_E_CHECKPOINT', message: /template/ }],
    [{ files: vmFiles(join('/tmp', `colo-qemu-test-${process.pid}`), 0) }, { code: 'COLO_E_HOST', message: /tmpfs/ }],
  ];
  for (const [change, expected] of failures) {
    await assert.rejects(Vm.start({ ...options, ...change }), expected);
    assert.ok(!existsSync((change.files ?? files).dir), `${expected.message}`);
  }
});

test('a start that hangs, or that the caller gives up, ends quickly and leaves nothing', async (context) => {
  const bin = mkdtempSync(join(tmpdir(), 'colo-qemu-test-'));
  context.after(() => rmSync(bin, { recursive: true }));
  const qemuPath = join(bin, 'hanging-qemu');
  writeFileSync(qemuPath, '#!/bin/sh\nexec sleep 1000\n', { mode: 0o755 });
  const spec = await memoryGuest({ machine: 'q35', ramBytes, pages: 10, periodMs: 20, dir: newDir() });
  const files = vmFiles(join(newDir(), 'run'), 0);
  const hanging = { spec, files, paused: false, log: silentLog, clock: systemClock, qemuPath };
  await assert.rejects(Vm.start({ ...hanging, timeouts: { startMs: 200 } }), { code: 'COLO_E_QEMU_TIMEOUT' });
  assert.ok(!existsSync(files.dir));
  const abort = new AbortController();
  const started = Vm.start({ ...hanging, signal: abort.signal });
  const aborted = assert.rejects(started, (error) => error instanceof ColoError || error === abort.signal.reason);
  while (!existsSync(files.qmpPath)) await delay(5);
  abort.abort();
  await aborted;
  assert.ok(!existsSync(files.dir));
});

// Starts a VM in a process of its own, and says QEMU's process id.
const nodeProgram = `
const [root, optionsText] = process.argv.slice(1);
const { Vm } = await import(root + '/src/qemu/vm.ts');
const { silentLog } = await import(root + '/src/base/log.ts');
const { systemClock } = await import(root + '/src/base/clock.ts');
const vm = await Vm.start({ ...JSON.parse(optionsText), paused: false, log: silentLog, clock: systemClock });
console.log(vm.pid);
setInterval(() => undefined, 1000);
`;

test('a killed node takes its QEMU with it, and the next start takes over what it left', async (context) => {
  const spec = await memoryGuest({ machine: 'microvm', ramBytes, pages: 10, periodMs: 20, dir: newDir() });
  const files = vmFiles(join(newDir(), 'run'), 0);
  const project = join(import.meta.dirname, '../..');
  const args = ['--input-type=module', '-e', nodeProgram, project, JSON.stringify({ spec, files })];
  const node = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  context.after(() => node.kill('SIGKILL'));
  const qemuPid = await new Promise<number>((resolve) => node.stdout.once('data', (text) => resolve(Number(text))));
  assert.ok(qemuPid > 0 && !isGone(qemuPid) && existsSync(files.ramPath));
  node.kill('SIGKILL');
  while (!isGone(qemuPid)) await delay(5);
  await startVm(context, spec, { files, paused: true });
});

test('what QEMU made of a machine is told by name, and a CPU that the host cannot give is none', async (context) => {
  const spec = (cpu: string | undefined, machine: MachineSpec['machine'] = 'q35'): MachineSpec => ({
    ...{ machine, cpu, accel: 'tcg', vcpus: 1, ramBytes, kernel: undefined, initrd: undefined, cmdline: '' },
    ...{ nics: [], serialLog: join(newDir(), 'serial'), extraArgs: [] },
  });
  const q35 = await startVm(context, spec(undefined), { paused: true });
  assert.match(q35.facts.type, /^pc-q35-\d+\.\d+$/);
  assert.equal(q35.facts.cpu['CPU vendor'], 'AuthenticAMD');
  const features = Number(q35.facts.cpu['CPUID 1:ECX']);
  assert.deepEqual({ ssse3: (features >> 9) & 1, rdrand: (features >> 30) & 1 }, { ssse3: 1, rdrand: 0 });
  const microvm = await startVm(context, spec(undefined, 'microvm'), { paused: true });
  assert.deepEqual({ type: microvm.facts.type, cpu: microvm.facts.cpu }, { type: 'microvm', cpu: q35.facts.cpu });
  const less = await startVm(context, spec('qemu64,-ssse3'), { paused: true });
  assert.notEqual(less.facts.cpu['CPUID 1:ECX'], q35.facts.cpu['CPUID 1:ECX']);
  // TCG has no RDSEED.
  await assert.rejects(startVm(context, spec('qemu64,+rdseed'), { paused: true }), /rdseed|doesn't support/i);
  const off = await startVm(context, spec('qemu64,+rdseed,enforce=off'), { paused: true });
  assert.deepEqual(off.facts.cpu, { ...off.facts.cpu, 'CPUID 7.0:EBX': q35.facts.cpu['CPUID 7.0:EBX'] });
});
