// What a node costs in memory, against the promise: the secondary holds two copies of guest RAM and at most 64 MiB more,
// the primary one copy and what one checkpoint stages. `colo bench memory` prints the table, or JSON.
//
// A pair for each size of RAM and each mode, the demo's guest, a download and a guest that rewrites pages all the time.
// Memory is what the kernel says of colod (/proc/PID/smaps_rollup), looked at many times; the largest counts:
//
//   guest RAM    the file that QEMU and colod share: one copy, in no process's anonymous memory
//   shadow       anonymous memory of the secondary's colod: the second copy
//   beyond       anonymous memory of colod - its shadow - what a colod with a VM and without a peer has
//
// QEMU's own memory (its heap, its translated code under TCG) is that of every VM and is not counted.

import { readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { smallBytes, smallSha256 } from '../guest/big-file.ts';
import { buildGuest, type Guest } from '../guest/build.ts';
import type { NodeStatus } from '../src/api/status.ts';
import { delay, systemClock } from '../src/base/clock.ts';
import { checkSpec } from '../src/config/spec.ts';
import { consoleSays } from '../src/demo/console.ts';
import { DownloadClient } from '../src/demo/download.ts';
import { freePorts } from '../src/lan/gateway.ts';
import type { NodeProcess } from '../src/local/node-process.ts';
import { LocalPair } from '../src/local/pair.ts';

export interface MemoryBenchOptions {
  /** Seconds that each case is watched. */
  rounds: number;
  json: boolean;
  print?: (text: string) => void;
}

export interface MemoryCase {
  mode: 'colo' | 'remus';
  ramMib: number;
  checkpoints: number;
  dirtyPagesMax: number;
  /** Anonymous memory of a colod whose VM is alone. */
  aloneMib: number;
  /** Most that was seen beyond `aloneMib` on the primary, and beyond it and the shadow on the secondary. */
  primaryBeyondMib: number;
  secondaryBeyondMib: number;
  /** Copies of guest RAM on the secondary: the file, and what its shadow takes. */
  secondaryCopies: number;
}

const ramSizesMib = [128, 1024];
const modes = ['colo', 'remus'] as const;
const secondsMax = 120;
const bootTimeoutMs = 120_000;
const sampleMs = 20;
const mebibyte = 2 ** 20;
/** What the promise allows the secondary beyond its two copies. */
export const secondaryBeyondMibMax = 64;

export async function benchMemory(options: MemoryBenchOptions): Promise<MemoryCase[]> {
  const print = options.print ?? ((text: string) => void process.stdout.write(text));
  const guest = await buildGuest({ onProgress: (line) => process.stderr.write(`- ${line}\n`) });
  const cases: MemoryCase[] = [];
  if (!options.json) print(heading());
  for (const mode of modes) {
    for (const ramMib of ramSizesMib) {
      const found = await measure({ mode, ramMib, seconds: Math.min(options.rounds, secondsMax) }, guest);
      cases.push(found);
      if (!options.json) print(row(found));
    }
  }
  if (options.json) print(`${JSON.stringify(cases, null, 2)}\n`);
  return cases;
}

interface Wanted {
  mode: 'colo' | 'remus';
  ramMib: number;
  seconds: number;
}

async function measure(wanted: Wanted, guest: Guest): Promise<MemoryCase> {
  const [http = 0, dirty = 0] = await freePorts(2);
  const forwards = [
    { protocol: 'tcp' as const, hostPort: http, guestPort: guest.ports.http },
    { protocol: 'tcp' as const, hostPort: dirty, guestPort: guest.ports.dirty },
  ];
  const machine = { memory: `${wanted.ramMib}M` };
  const spec = checkSpec(
    { vm: 'memory', boot: { guest: 'demo' }, machine, protect: { mode: wanted.mode } },
    'the benchmark',
  );
  const boot = { kernel: guest.kernel, initrd: guest.initrd, cmdline: guest.cmdline };
  const pair = await LocalPair.start({ spec, boot, clock: systemClock, forwards });
  try {
    const { signal } = new AbortController();
    const path = `${pair.logDir}/a.serial`;
    await consoleSays(pair.a, { text: 'colo-guest ready', path, timeoutMs: bootTimeoutMs, signal });
    const aloneMib = anonymousMib(pair.a);
    const peaks = { a: 0, b: 0 };
    const stop = systemClock.every(sampleMs, () => sample(pair, peaks));
    try {
      await load({ pair, http, dirty, seconds: wanted.seconds });
    } finally {
      stop();
    }
    return caseOf(wanted, { aloneMib, peaks, status: await pair.primary() });
  } finally {
    await pair.stop();
  }
}

function sample(pair: LocalPair, peaks: { a: number; b: number }): void {
  peaks.a = Math.max(peaks.a, anonymousMib(pair.a));
  if (pair.b !== undefined) peaks.b = Math.max(peaks.b, anonymousMib(pair.b));
}

/** Protects the VM and keeps it busy: a download, and a guest that rewrites 6,000 pages five times a second. */
async function load(on: { pair: LocalPair; http: number; dirty: number; seconds: number }): Promise<void> {
  const { pair } = on;
  await pair.startSecondary();
  const isProtected = (all: NodeStatus[]) => all.some((one) => one.role === 'primary' && one.protected);
  await pair.until('protected', bootTimeoutMs, isProtected);
  const dirtier = connect(on.dirty, '127.0.0.1').on('error', () => undefined);
  dirtier.write('dirty 6000 200\n');
  const small = { path: '/small', bytes: smallBytes, sha256: smallSha256() };
  const download = await DownloadClient.start({ port: on.http, ...small }, systemClock);
  try {
    await delay(on.seconds * 1000);
  } finally {
    download.abort();
    dirtier.destroy();
  }
}

function caseOf(
  wanted: Wanted,
  seen: { aloneMib: number; peaks: { a: number; b: number }; status: NodeStatus | undefined },
): MemoryCase {
  const { aloneMib, peaks, status } = seen;
  // In remus mode RAM and shadow are one but for the first apply; a copy for that moment is within the promise.
  const shadowMib = Math.min(wanted.ramMib, Math.max(0, peaks.b - aloneMib));
  return {
    mode: wanted.mode,
    ramMib: wanted.ramMib,
    checkpoints: status?.checkpoints?.count ?? 0,
    dirtyPagesMax: status?.checkpoints?.dirtyPages.max ?? 0,
    aloneMib,
    primaryBeyondMib: peaks.a - aloneMib,
    secondaryBeyondMib: Math.max(0, peaks.b - aloneMib - wanted.ramMib),
    secondaryCopies: 1 + shadowMib / wanted.ramMib,
  };
}

/** Anonymous memory of the node's colod in MiB; 0 when it has just ended. */
function anonymousMib(node: NodeProcess): number {
  try {
    const rollup = readFileSync(`/proc/${node.pid}/smaps_rollup`, 'utf8');
    return (Number(/^Anonymous:\s+(\d+) kB$/m.exec(rollup)?.[1] ?? 0) * 1024) / mebibyte;
  } catch {
    return 0;
  }
}

const titles = ['RAM MiB', 'checkpoints', 'dirty max', 'alone', 'primary +', 'copies', 'secondary +'];

function heading(): string {
  return `anonymous memory of colod in MiB\n${columns(['mode', ...titles])}`;
}

function row(each: MemoryCase): string {
  const whole = (value: number) => value.toFixed(0);
  return columns([
    each.mode,
    ...[each.ramMib, each.checkpoints, each.dirtyPagesMax, each.aloneMib, each.primaryBeyondMib].map(whole),
    each.secondaryCopies.toFixed(2),
    whole(each.secondaryBeyondMib),
  ]);
}

function columns(cells: readonly string[]): string {
  return `${cells.map((cell, index) => (index === 0 ? cell.padEnd(8) : cell.padStart(13))).join('')}\n`;
}
