// The machine that a spec describes, as every node of its VM starts it.

import type { Spec } from '../config/spec.ts';
import { tscKhz } from '../host/processor.ts';
import type { MachineSpec } from '../qemu/machine.ts';
import { firmwareOf } from './firmware.ts';

export interface BootFiles {
  /** undefined: the machine starts from its first disk. */
  kernel: string | undefined;
  initrd: string | undefined;
  cmdline: string;
}

export function machineOf(spec: Spec, boot: BootFiles, serialLog: string): MachineSpec {
  const firmware = firmwareOf(spec.machine);
  const { display } = spec.machine;
  return {
    machine: spec.machine.type,
    accel: spec.machine.accel,
    cpu: spec.machine.cpu,
    rtc: spec.machine.rtc,
    vcpus: spec.machine.vcpus,
    ramBytes: spec.machine.memory,
    kernel: boot.kernel,
    initrd: boot.initrd,
    // Without a kernel of ours the machine starts from its disk, and takes no arguments.
    cmdline: boot.kernel === undefined ? boot.cmdline : kernelArguments(spec.machine, boot.cmdline),
    ...(firmware === undefined ? {} : { firmware }),
    ...(display === 'none' ? {} : { display }),
    nics: [spec.network, ...spec.cards].map(({ mac, mtu }) => (mtu === undefined ? { mac } : { mac, mtu })),
    serialLog,
    extraArgs: [],
  };
}

/**
 * The guest's kernel arguments. An emulated guest's time stamp counter is the host's, and Linux is told its rate where the
 * host knows it: measuring it at boot goes wrong when the host is busy. A microvm has nothing to measure against and hung
 * (in 5 of 6 starts); a q35 was seen once with a clock that gained five minutes in eight seconds.
 */
export function kernelArguments(machine: Pick<Spec['machine'], 'accel'>, cmdline: string): string {
  const khz = machine.accel === 'tcg' ? tscKhz() : undefined;
  return khz === undefined ? cmdline : `${cmdline} tsc_early_khz=${khz}`;
}
