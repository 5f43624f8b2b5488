// The bare guest: a guest of our own that runs on every x86-64 machine of QEMU and under every accelerator, also under
// a KVM that boots no Linux. It polls its devices and takes no interrupts. What it serves is told in services.c, ask.c
// and boot.c; docs/guest.md has it in one table.

import { createHash } from 'node:crypto';
import type { MachineSpec } from '../../src/qemu/machine.ts';
import { buildBareGuest } from './build.ts';

/** What the serial console says when everything answers. */
export const bareReadyLine = 'bare-guest ready';

export const barePorts = {
  echoTcp: 7,
  /** Lines come back behind their number on the connection. */
  numberedTcp: 8,
  /** Lines are answered with the TSC: two copies always differ. */
  timesTcp: 13,
  http: 80,
  echoUdp: 7,
  /** Datagrams come back behind their number since boot. */
  numberedUdp: 8,
  commands: 9,
} as const;

/** Where the pool of pages begins; the guest needs all of it in its RAM. */
const poolStart = 0x2000000;
const pageBytes = 4096;

export interface BareGuestOptions {
  machine: MachineSpec['machine'];
  accel: MachineSpec['accel'];
  cpu?: string;
  vcpus?: number;
  ramBytes: number;
  nics?: MachineSpec['nics'];
  serialLog: string;
  /** Pages written in a turn, and the time from one turn to the next. None by default. */
  pages?: number;
  periodMs?: number;
  /** Each turn ends with "beat N" on the serial console. */
  beats?: boolean;
  /** False: a turn is made only when the control page asks for it. */
  freeRun?: boolean;
  /** Pages that are written and read, a power of two; 64 MiB by default. */
  poolPages?: number;
}

export function bareCommandLine(
  options: Pick<BareGuestOptions, 'vcpus' | 'pages' | 'periodMs' | 'beats' | 'freeRun' | 'poolPages'>,
): string {
  const { pages = 0, periodMs = 100, beats = false, freeRun = true, poolPages = 16_384, vcpus = 1 } = options;
  const words = {
    pages,
    period: Math.round(periodMs * 1000),
    beats: Number(beats),
    free: Number(freeRun),
    pool: poolPages,
    vcpus,
  };
  return Object.entries(words)
    .map(([name, value]) => `${name}=${value}`)
    .join(' ');
}

/** The machine that runs it. */
export async function bareGuest(options: BareGuestOptions): Promise<MachineSpec> {
  return {
    machine: options.machine,
    accel: options.accel,
    cpu: options.cpu,
    vcpus: options.vcpus ?? 1,
    ramBytes: options.ramBytes,
    kernel: await buildBareGuest(),
    initrd: undefined,
    cmdline: bareCommandLine(options),
    nics: options.nics ?? [],
    serialLog: options.serialLog,
    extraArgs: [],
  };
}

/** The largest pool that a guest with so much RAM has room for. */
export function poolPagesFor(ramBytes: number): number {
  return 2 ** Math.floor(Math.log2((ramBytes - poolStart) / pageBytes));
}

/** The bytes that `GET /BYTES` serves, computed on the host (services.c). */
export function knownBytes(byteCount: number): Buffer {
  const bytes = Buffer.alloc(Math.ceil(byteCount / 8) * 8);
  const mask = (1n << 64n) - 1n;
  for (let index = 0; index * 8 < byteCount; index++) {
    const word = (BigInt(index + 1) * 0x9e3779b97f4a7c15n) & mask;
    bytes.writeBigUInt64LE(word ^ (word >> 32n), index * 8);
  }
  return bytes.subarray(0, byteCount);
}

export function knownSha256(byteCount: number): string {
  return createHash('sha256').update(knownBytes(byteCount)).digest('hex');
}

/** What an answer to a command says: " name=value" (ask.c). */
export function parseFields(answer: string): Map<string, bigint> {
  return new Map([...answer.matchAll(/(\w+)=(\d+)/g)].map(([, name = '', value = '0']) => [name, BigInt(value)]));
}
