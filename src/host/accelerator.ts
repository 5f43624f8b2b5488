// Which accelerator QEMU can really use here. That /dev/kvm opens says little: there are hosts whose KVM runs firmware
// and hangs in a Linux kernel. So KVM counts as usable only after a kernel printed its first line under it.

import { spawn } from 'node:child_process';
import { accessSync, constants, existsSync } from 'node:fs';
import { probeTimeoutMs } from './limits.ts';

export interface KvmProbe {
  usable: boolean;
  /** A plain sentence: what was tried and what came of it. */
  detail: string;
}

/** Starts `kernel` under KVM and waits, within bounds, for its first line on the serial console. */
function kernelSpeaks(kernel: string): Promise<boolean> {
  const machine = ['-accel', 'kvm', '-M', 'pc', '-m', '128', '-nodefaults', '-display', 'none', '-no-reboot'];
  const boot = ['-serial', 'stdio', '-kernel', kernel, '-append', 'console=ttyS0 earlyprintk=ttyS0 panic=-1'];
  const qemu = spawn('qemu-system-x86_64', [...machine, ...boot], { stdio: ['ignore', 'pipe', 'ignore'] });
  return new Promise((resolve) => {
    let said = '';
    const timer = setTimeout(() => qemu.kill('SIGKILL'), probeTimeoutMs);
    qemu.stdout.on('data', (data) => {
      said = (said + String(data)).slice(-4096);
      if (said.includes('Linux version')) qemu.kill('SIGKILL');
    });
    const end = (): void => {
      clearTimeout(timer);
      resolve(said.includes('Linux version'));
    };
    qemu.once('close', end);
    qemu.once('error', end);
  });
}

/** Tries KVM; `kernel` is a Linux kernel image to start, without one nothing can be promised. */
export async function probeKvm(kernel: string | undefined): Promise<KvmProbe> {
  if (!existsSync('/dev/kvm')) return { usable: false, detail: 'this host has no /dev/kvm' };
  try {
    accessSync('/dev/kvm', constants.R_OK | constants.W_OK);
  } catch {
    return { usable: false, detail: '/dev/kvm may not be opened by this user' };
  }
  if (kernel === undefined) return { usable: false, detail: 'KVM was not tried: there is no guest kernel yet' };
  if (await kernelSpeaks(kernel)) return { usable: true, detail: 'a Linux kernel starts under KVM' };
  const seconds = probeTimeoutMs / 1000;
  return { usable: false, detail: `/dev/kvm opens, but no Linux kernel started under it within ${seconds} s` };
}
