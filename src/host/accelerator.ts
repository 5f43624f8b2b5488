// Which accelerator QEMU can really use here. That /dev/kvm opens says little: there are hosts whose KVM runs firmware
// and hangs in a Linux kernel. So KVM counts as usable only after a kernel printed its first line under it.

import { spawn } from 'node:child_process';
import { accessSync, constants, existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { probeTimeoutMs } from './limits.ts';

export interface KvmProbe {
  usable: boolean;
  /** A plain sentence: what was tried and what came of it. */
  detail: string;
}

interface Attempt {
  kernel: string;
  cmdline: string;
  machine: 'pc' | 'microvm';
  /** Said on the serial console by a kernel that runs. */
  says: string;
  timeoutMs: number;
}

/** Starts `kernel` under KVM and waits, within bounds, for its line on the serial console. */
function kernelSpeaks({ kernel, cmdline, machine, says, timeoutMs }: Attempt): Promise<boolean> {
  const host = ['-accel', 'kvm', '-M', machine, '-m', '128', '-nodefaults', '-display', 'none', '-no-reboot'];
  const boot = ['-serial', 'stdio', '-kernel', kernel, '-append', cmdline];
  const qemu = spawn('qemu-system-x86_64', [...host, ...boot], { stdio: ['ignore', 'pipe', 'ignore'] });
  return new Promise((resolve) => {
    let said = '';
    const timer = setTimeout(() => qemu.kill('SIGKILL'), timeoutMs);
    qemu.stdout.on('data', (data) => {
      said = (said + String(data)).slice(-4096);
      if (said.includes(says)) qemu.kill('SIGKILL');
    });
    const end = (): void => {
      clearTimeout(timer);
      resolve(said.includes(says));
    };
    qemu.once('close', end);
    qemu.once('error', end);
  });
}

/** Why /dev/kvm cannot even be opened; undefined when it can. */
function kvmIsShut(): string | undefined {
  if (!existsSync('/dev/kvm')) return 'this host has no /dev/kvm';
  try {
    accessSync('/dev/kvm', constants.R_OK | constants.W_OK);
    return undefined;
  } catch {
    return '/dev/kvm may not be opened by this user';
  }
}

/** Tries KVM; `kernel` is a Linux kernel image to start, without one nothing can be promised. */
export async function probeKvm(kernel: string | undefined): Promise<KvmProbe> {
  const shut = kvmIsShut();
  if (shut !== undefined) return { usable: false, detail: shut };
  if (kernel === undefined) return { usable: false, detail: 'KVM was not tried: there is no guest kernel yet' };
  const cmdline = 'console=ttyS0 earlyprintk=ttyS0 panic=-1';
  const attempt = { kernel, cmdline, machine: 'pc', says: 'Linux version', timeoutMs: probeTimeoutMs } as const;
  if (await kernelSpeaks(attempt)) return { usable: true, detail: 'a Linux kernel starts under KVM' };
  const seconds = probeTimeoutMs / 1000;
  return { usable: false, detail: `/dev/kvm opens, but no Linux kernel started under it within ${seconds} s` };
}

/** Tries KVM with the bare guest, which also a KVM that starts no Linux may run. */
export async function probeBareGuest(kernel: string, timeoutMs = probeTimeoutMs): Promise<KvmProbe> {
  const shut = kvmIsShut();
  if (shut !== undefined) return { usable: false, detail: shut };
  const attempt = { kernel, cmdline: '', machine: 'microvm', says: 'bare-guest ready', timeoutMs } as const;
  if (await kernelSpeaks(attempt)) return { usable: true, detail: 'the bare guest runs under KVM' };
  return { usable: false, detail: `/dev/kvm opens, but the bare guest did not run under it in ${timeoutMs / 1000} s` };
}

export interface KvmKind {
  /** As Linux calls the module: kvm_intel, kvm_amd, kvm_pvm. */
  module: string;
  /**
   * The processor translates the guest's addresses itself (EPT, NPT); without it KVM shadows the guest's page tables.
   */
  hasNestedPaging: boolean;
}

/** How KVM works on this host; undefined where no module says. */
export function kvmKind(modules = '/sys/module'): KvmKind | undefined {
  // All may be loaded; the last one registered with KVM, and hosts with the hardware do not load kvm_pvm.
  const kinds = [
    ['kvm_intel', 'ept'],
    ['kvm_amd', 'npt'],
    ['kvm_pvm', ''],
  ] as const;
  for (const [module, parameter] of kinds) {
    if (!existsSync(join(modules, module))) continue;
    const path = join(modules, module, 'parameters', parameter);
    const isOn = parameter !== '' && existsSync(path) && /^[1Y]/.test(readFileSync(path, 'utf8'));
    return { module, hasNestedPaging: isOn };
  }
  return undefined;
}
