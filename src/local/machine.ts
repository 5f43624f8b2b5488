// The machine that a spec describes, as every node of its VM starts it.

import type { Spec } from '../config/spec.ts';
import { tscKhz } from '../host/processor.ts';
import type { MachineSpec } from '../qemu/machine.ts';

export interface BootFiles {
  /** undefined: the machine starts from its first disk. */
  kernel: string | undefined;
  initrd: string | undefined;
  cmdline: string;
}

export function machineOf(spec: Spec, boot: BootFiles, serialLog: string): MachineSpec {
  return {
    machine: spec.machine.type,
    accel: spec.machine.accel,
    cpu: spec.machine.cpu,
    rtc: spec.machine.rtc,
    vcpus: spec.machine.vcpus,
    ramBytes: spec.machine.memory,
    kernel: boot.kernel,
    initrd: boot.initrd,
    cmdline: kernelArguments(spec.machine, boot.cmdline),
    nics: [spec.network, ...spec.cards].map(({ mac, mtu }) => (mtu === undefined ? { mac } : { mac, mtu })),
    serialLog,
    extraArgs: [],
  };
}

/**
 * The guest's kernel arguments, with what its machine type needs. A microvm has no timer that Linux could measure its
 * clock against; emulated and on a busy host it then hangs at boot (seen in 5 of 6 starts). It is told the rate: under
 * TCG the guest's counter is the host's.
 */
export function kernelArguments(machine: Pick<Spec['machine'], 'type' | 'accel'>, cmdline: string): string {
  const khz = machine.type === 'microvm' && machine.accel === 'tcg' ? tscKhz() : undefined;
  return khz === undefined ? cmdline : `${cmdline} tsc_early_khz=${khz}`;
}
