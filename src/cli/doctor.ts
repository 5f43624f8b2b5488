// `colo doctor`: what this host can do, one line for each thing, with what to do where it falls short.
//
// Everything is tried rather than guessed, each within a bound; nothing is installed or changed.

import { accessSync, constants, statfsSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import koffi from 'koffi';
import { findGuest } from '../../guest/build.ts';
import { probeKvm } from '../host/accelerator.ts';
import { tryCommand } from '../host/command.ts';
import { hasSoftDirty, memoryAvailableBytes, userfaultfdSupport } from '../host/kernel-features.ts';
import { probeTimeoutMs } from '../host/limits.ts';

export type DoctorState = 'ok' | 'limited' | 'missing';

export interface DoctorLine {
  what: string;
  state: DoctorState;
  detail: string;
  todo?: string;
}

const mebibyte = 1024 * 1024;

/** A pair of the default demo guest: RAM twice, the secondary's second copy, and the processes. */
const memoryWantedBytes = 1536 * mebibyte;
const memoryLeastBytes = 900 * mebibyte;

function line(what: string, state: DoctorState, detail: string, todo?: string): DoctorLine {
  return todo === undefined || state === 'ok' ? { what, state, detail } : { what, state, detail, todo };
}

async function says(file: string, args: string[]): Promise<string | undefined> {
  const result = await tryCommand(file, args, { timeoutMs: probeTimeoutMs });
  return result.code === 0 ? result.stdout : undefined;
}

function node(): DoctorLine {
  const isEnough = Number(process.versions.node.split('.')[0]) >= 24;
  return line('Node', isEnough ? 'ok' : 'limited', process.version, 'Start colo through ./colo: it brings Node 24.');
}

/** The line for what `qemu-system-x86_64 --version` said. */
export function qemuLine(said: string | undefined): DoctorLine {
  const todo = 'apt-get install --no-install-recommends qemu-system-x86 (7.2 or newer)';
  if (said === undefined) return line('QEMU', 'missing', 'qemu-system-x86_64 does not run', todo);
  const [, version = 'unknown', major = '0', minor = '0'] = /version ((\d+)\.(\d+)[.\d]*)/.exec(said) ?? [];
  const isEnough = Number(major) > 7 || (Number(major) === 7 && Number(minor) >= 2);
  return line('QEMU', isEnough ? 'ok' : 'missing', isEnough ? version : `${version} is older than 7.2`, todo);
}

async function qemuImg(): Promise<DoctorLine> {
  const version = /version (\S+)/.exec((await says('qemu-img', ['--version'])) ?? '')?.[1];
  const todo = 'apt-get install --no-install-recommends qemu-utils';
  return line('qemu-img', version === undefined ? 'missing' : 'ok', version ?? 'does not run', todo);
}

async function accelerator(kernel: string | undefined): Promise<DoctorLine> {
  const kvm = await probeKvm(kernel);
  if (kvm.usable) return line('accelerator', 'ok', `KVM: ${kvm.detail}`);
  const todo =
    'Nothing for trying colo out; for real loads a host with hardware virtualization and access to /dev/kvm.';
  return line('accelerator', 'limited', `TCG (emulation, many times slower); ${kvm.detail}`, todo);
}

function dirtyPages(): DoctorLine {
  const userfaultfd = userfaultfdSupport();
  const other = hasSoftDirty() ? 'soft-dirty as well' : 'soft-dirty is not built into this kernel';
  if (userfaultfd.usable)
    return line('dirty pages', 'ok', `userfaultfd write protection, ${userfaultfd.detail}; ${other}`);
  const todo = 'Linux 6.7 or newer, built with userfaultfd, and no sandbox that forbids it.';
  if (hasSoftDirty()) return line('dirty pages', 'limited', `soft-dirty, because ${userfaultfd.detail}`, todo);
  const why = `${userfaultfd.detail} and soft-dirty is not built in`;
  const detail = `comparing all memory at each checkpoint, because ${why}`;
  return line('dirty pages', 'limited', detail, todo);
}

async function compiler(): Promise<DoctorLine> {
  const version = (await says('gcc', ['-dumpfullversion']))?.trim();
  const headers = await says('gcc', ['-E', '-x', 'c', '-include', 'sys/mman.h', '/dev/null', '-o', '/dev/null']);
  const todo = 'apt-get install --no-install-recommends gcc libc6-dev (it compiles the userfaultfd preload library)';
  if (version === undefined) return line('C compiler', 'missing', 'gcc does not run', todo);
  if (headers === undefined) return line('C compiler', 'missing', `gcc ${version} without libc headers`, todo);
  return line('C compiler', 'ok', `gcc ${version}`);
}

function lz4(): DoctorLine {
  try {
    koffi.load('liblz4.so.1').unload();
    return line('liblz4', 'ok', 'loads');
  } catch {
    const todo = 'apt-get install --no-install-recommends liblz4-1';
    return line('liblz4', 'limited', 'does not load: checkpoints are sent less compressed', todo);
  }
}

/** The line for an amount of memory that is free. */
export function roomLine(what: string, freeBytes: number, todo: string): DoctorLine {
  const state = freeBytes >= memoryWantedBytes ? 'ok' : freeBytes >= memoryLeastBytes ? 'limited' : 'missing';
  return line(what, state, `${Math.floor(freeBytes / mebibyte)} MiB free`, todo);
}

function room(): DoctorLine[] {
  const shared = statfsSync('/dev/shm', { bigint: false });
  return [
    roomLine('memory', memoryAvailableBytes(), 'Free 1.5 GiB of memory, or give the guest less (at least 128 MiB).'),
    roomLine('/dev/shm', shared.bavail * shared.bsize, 'mount -o remount,size=2G /dev/shm (guest RAM lives there)'),
  ];
}

async function namespaces(): Promise<DoctorLine> {
  const what = 'network namespaces';
  const asIs = await says('unshare', ['-n', 'true']);
  const mapped = asIs ?? (await says('unshare', ['-rn', 'true']));
  const todo = 'Run as root, with the kernel module tun loaded, for TAP networking and for IPv6 in the demo.';
  if (mapped === undefined) return line(what, 'limited', 'this user may not make them: the demo is IPv4 only', todo);
  const how = asIs === undefined ? 'with a user namespace' : 'this user may make them';
  if (canOpenTun()) return line(what, 'ok', how);
  return line(what, 'limited', `${how}, but not open /dev/net/tun: the demo is IPv4 only`, todo);
}

function canOpenTun(): boolean {
  try {
    accessSync('/dev/net/tun', constants.R_OK | constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

function cores(): DoctorLine {
  const count = availableParallelism();
  const todo = 'Two cores or more: both copies of the guest and both nodes share what there is.';
  return line('cores', count >= 2 ? 'ok' : 'limited', String(count), todo);
}

/** Looks at everything; takes some seconds where KVM is there and does not work. */
export async function doctor(): Promise<DoctorLine[]> {
  const guest = await findGuest();
  const guestTodo = 'Nothing: the first demo or test builds it, which takes half a minute and the network.';
  return [
    node(),
    qemuLine(await says('qemu-system-x86_64', ['--version'])),
    await qemuImg(),
    await accelerator(guest?.kernel),
    dirtyPages(),
    await compiler(),
    lz4(),
    ...room(),
    await namespaces(),
    cores(),
    guest === undefined
      ? line('demo guest', 'limited', 'not built yet', guestTodo)
      : line('demo guest', 'ok', `built (${guest.hash})`),
  ];
}

/** The lines as aligned text, each thing to do below its line. */
export function formatDoctor(lines: readonly (Omit<DoctorLine, 'todo'> & { todo?: string | undefined })[]): string {
  const width = Math.max(...lines.map((each) => each.what.length));
  const text = lines.flatMap((each) => {
    const first = `${each.state.padEnd(8)}${each.what.padEnd(width + 2)}${each.detail}`;
    return each.todo === undefined ? [first] : [first, `${' '.repeat(width + 10)}-> ${each.todo}`];
  });
  return `${text.join('\n')}\n`;
}
