// Whatever a run creates is gone when it ends, also when it is interrupted at any moment or killed itself.

import assert from 'node:assert/strict';
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { buildGuest } from '../../guest/build.ts';
import { delay, systemClock } from '../../src/base/clock.ts';
import { checkSpec } from '../../src/config/spec.ts';
import { runDirectory, runRoot } from '../../src/local/directories.ts';
import { LocalPair } from '../../src/local/pair.ts';

const program = join(import.meta.dirname, '../../src/cli/main.ts');

/** A demo that runs, and where it may leave something. */
interface Run {
  name: string;
  pid: number;
  /** Its folder for temporary files, which is nobody else's. */
  temporary: string;
  /** Network devices of this machine before it began. */
  devicesBefore: ReadonlySet<string>;
  child: ChildProcess;
  said(text: string): Promise<void>;
  ended: Promise<number | null>;
}

function startDemo(name: string, more: readonly string[], environment: Record<string, string> = {}): Run {
  const temporary = mkdtempSync(join(tmpdir(), 'colo-cleanup-'));
  const devicesBefore = new Set(networkDevices());
  const args = [program, 'demo', '--name', name, ...more];
  const env = { ...process.env, ...environment, TMPDIR: temporary };
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'], env });
  let text = '';
  child.stdout.on('data', (chunk: Buffer) => {
    text += chunk.toString();
  });
  child.stderr.resume();
  const ended = new Promise<number | null>((resolve) => child.once('close', (code) => resolve(code)));
  const said = (wanted: string) => until(`the demo says "${wanted}"`, () => text.includes(wanted));
  return { name, pid: child.pid ?? 0, temporary, devicesBefore, child, ended, said };
}

const endlessly = ['--seconds', '30', '--fault', 'none'];

async function until(what: string, holds: () => boolean): Promise<void> {
  for (let tries = 0; tries < 6000; tries += 1) {
    if (holds()) return;
    await delay(50);
  }
  assert.fail(`not within five minutes: ${what}`);
}

/** Living processes whose command line (`cmdline`), or what they were given as `environ`, has these words. */
function processesWith(file: 'cmdline' | 'environ', words: string): string[] {
  return readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry) && Number(entry) !== process.pid)
    .filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/${file}`, 'latin1').includes(words);
      } catch {
        return false;
      }
    });
}

/** A process that the run has begun, and has become this program. */
function hasBegun(run: Run, program: string): boolean {
  const all = processesWith('cmdline', program);
  return leftOf(run).process.some((pid) => all.includes(pid));
}

function namesIn(folder: string): string[] {
  return existsSync(folder) ? readdirSync(folder) : [];
}

function networkDevices(): string[] {
  return namesIn('/sys/class/net');
}

function linesOf(path: string, ...words: string[]): string[] {
  return readFileSync(path, 'latin1')
    .split('\n')
    .filter((line) => words.some((word) => line.includes(word)));
}

const kindsOfLeft = ['process', 'namespace', 'device', 'socket', 'mount', 'temporary file', 'shared memory'] as const;

/** What of a run is there, by kinds: processes, network namespaces, devices (TAPs, veths), sockets, mounts, files. */
function leftOf(run: Run): Record<(typeof kindsOfLeft)[number], string[]> {
  const directory = runDirectory(run.name);
  // How a lab names its namespaces (src/lab/lab.ts).
  const ownNamespace = `colo-${run.pid}.`;
  return {
    // What it is given tells whose it is from its first moment on: its command line is its parent's until it is its
    // own.
    process: processesWith('environ', `TMPDIR=${run.temporary}\0`),
    namespace: namesIn('/run/netns').filter((name) => name.startsWith(ownNamespace)),
    device: networkDevices().filter((name) => !run.devicesBefore.has(name)),
    socket: linesOf('/proc/net/unix', `${directory}/`, `${run.temporary}/`),
    mount: linesOf('/proc/self/mountinfo', `${directory}/`, run.temporary, ownNamespace),
    'temporary file': namesIn(run.temporary),
    'shared memory': [...namesIn('/dev/shm'), ...namesIn(runRoot())].filter((name) => name.includes(run.name)),
  };
}

/**
 * Nothing of the run is there any more. What the kernel was told to end may need a moment, on a starved host even a
 * long one.
 */
async function expectNothingOf(run: Run): Promise<void> {
  const left = () => Object.entries(leftOf(run)).flatMap(([kind, names]) => names.map((name) => `${kind} ${name}`));
  await until('nothing of the run is left', () => left().length === 0).catch(() => assert.deepEqual(left(), []));
  rmSync(run.temporary, { recursive: true, force: true });
}

const moments: [name: string, text: string][] = [
  ['while the guest boots', ''],
  ['while the RAM is copied', 'the guest runs'],
  ['while the clients run', 'protected in'],
];

for (const [moment, text] of moments)
  test(`a demo that is interrupted ${moment} leaves nothing behind`, async () => {
    await buildGuest();
    const demo = startDemo('cleanup-interrupt', endlessly);
    if (text === '') await until('QEMU runs', () => hasBegun(demo, 'qemu-system'));
    else await demo.said(text);
    const { socket, 'shared memory': shared } = leftOf(demo);
    assert.ok(socket.length > 0 && shared.length > 0, 'what is looked for is seen while it is there');
    demo.child.kill('SIGINT');
    assert.equal(await demo.ended, 130);
    await expectNothingOf(demo);
  });

test('the nodes and the guests of a demo that is killed end by themselves, and the next run sweeps what is left', async () => {
  await buildGuest();
  const name = 'cleanup-kill';
  const killed = startDemo(name, endlessly);
  await killed.said('protected in');
  killed.child.kill('SIGKILL');
  await killed.ended;
  await until('every process ended', () => leftOf(killed).process.length === 0);
  const next = startDemo(name, endlessly);
  await next.said('the guest runs');
  next.child.kill('SIGINT');
  assert.equal(await next.ended, 130);
  await expectNothingOf(next);
  await expectNothingOf(killed);
});

const mayUnshare = spawnSync('unshare', ['-n', 'true']).status === 0;
/** The clients' host never comes to its own first line. */
const standingStill = `data:text/javascript,${encodeURIComponent(
  `if (process.argv[1]?.endsWith('clients/host-main.ts')) await new Promise(() => setInterval(() => undefined, 1000));`,
)}`;

test("the clients' host of a demo that is killed ends by itself, also before it listens to anybody", {
  ...(mayUnshare ? {} : { skip: 'no network namespaces here' }),
}, async () => {
  await buildGuest();
  const demo = startDemo('cleanup-clients', endlessly, { NODE_OPTIONS: `--import ${standingStill}` });
  await until("the clients' host begins", () => hasBegun(demo, 'clients/host-main.ts'));
  demo.child.kill('SIGKILL');
  await demo.ended;
  await expectNothingOf(demo);
});

test('of hosts in network namespaces nothing is left: at an interrupt at once, of a run that was killed by the next one', async () => {
  const name = 'cleanup-hosts';
  const killed = startDemo(name, ['--hosts', '3']);
  await until('hosts run', () => hasBegun(killed, 'etcd'));
  const seen = leftOf(killed);
  assert.ok(seen.namespace.length >= 4 && seen.mount.length >= 4, 'what is looked for is seen while it is there');
  killed.child.kill('SIGKILL');
  await killed.ended;
  await until('every process ended', () => leftOf(killed).process.length === 0);
  const next = startDemo(name, ['--hosts', '3']);
  await until('hosts run', () => hasBegun(next, 'etcd'));
  next.child.kill('SIGINT');
  assert.equal(await next.ended, 130);
  await expectNothingOf(next);
  await expectNothingOf(killed);
});

test('a start that hangs is given up at once, and nothing of it is left', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'colo-cleanup-'));
  const qemuPath = join(folder, 'qemu');
  writeFileSync(qemuPath, '#!/bin/sh\nwhile :; do sleep 0.2; done\n', { mode: 0o755 });
  const spec = checkSpec({ vm: 'cleanup-hang', boot: { guest: 'demo' } }, 'the test');
  const boot = { kernel: undefined, initrd: undefined, cmdline: '' };
  const interrupt = new AbortController();
  try {
    const started = LocalPair.start({
      ...{ spec, boot, forwards: [], gateway: false, clock: systemClock, qemuPath, signal: interrupt.signal },
    });
    started.catch(() => undefined);
    await until('QEMU is waited for', () => processesWith('cmdline', `${runDirectory(spec.vm)}/`).length > 0);
    interrupt.abort(new Error('given up by the test'));
    await assert.rejects(started, /given up by the test/);
    await until('every process ended', () => processesWith('cmdline', `${runDirectory(spec.vm)}/`).length === 0);
    assert.equal(existsSync(runDirectory(spec.vm)), false);
  } finally {
    interrupt.abort();
    rmSync(folder, { recursive: true });
  }
});
