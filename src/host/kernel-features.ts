// What this host's kernel offers for finding dirty pages, as far as it can be told without a QEMU. The trackers of
// src/qemu probe for themselves, on the real process; this is for telling a person what to expect.

import { closeSync, readFileSync } from 'node:fs';
import { release } from 'node:os';
import { libc } from '../base/libc.ts';

/** The system call's number on x86-64. */
const userfaultfdNumber = 323;
const userModeOnly = 1;

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

/** True when the kernel release `text` ("6.18.44-x") is at least major.minor. */
export function isKernelAtLeast(text: string, major: number, minor: number): boolean {
  const [, first, second] = /^(\d+)\.(\d+)/.exec(text) ?? [];
  const found = [Number(first ?? 0), Number(second ?? 0)] as const;
  return found[0] > major || (found[0] === major && found[1] >= minor);
}

/**
 * Tries it, as native/preload.c does: for faults of user mode alone no privilege is needed, but a sandbox may forbid
 * it.
 */
function mayUseUserfaultfd(): boolean {
  const fd = Number(libc.func('long syscall(long number, long flags)')(userfaultfdNumber, userModeOnly));
  if (fd >= 0) closeSync(fd);
  return fd >= 0;
}

/** Asynchronous userfaultfd write protection with PAGEMAP_SCAN: Linux 6.7, and permission. */
export function userfaultfdSupport(): { usable: boolean; detail: string } {
  if (!isKernelAtLeast(release(), 6, 7)) return { usable: false, detail: `Linux ${release()} is older than 6.7` };
  if (!mayUseUserfaultfd()) return { usable: false, detail: 'this process may not use userfaultfd' };
  return { usable: true, detail: `Linux ${release()}` };
}

/** A kernel with soft-dirty tracking marks every new mapping "sd" in smaps; one without never does. */
export function hasSoftDirty(): boolean {
  return / sd( |$)/m.test(read('/proc/self/smaps').replace(/^(?!VmFlags).*$/gm, ''));
}

/** MemAvailable of /proc/meminfo, in bytes. */
export function memoryAvailableBytes(): number {
  return Number(/^MemAvailable:\s+(\d+) kB/m.exec(read('/proc/meminfo'))?.[1] ?? 0) * 1024;
}
