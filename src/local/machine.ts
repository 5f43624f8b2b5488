// The machine that a spec describes, as every node of its VM starts it.

import { busOf, type Spec, writtenDisks } from '../config/spec.ts';
import { mediumHash } from '../host/disk-image.ts';
import { tscKhz } from '../host/processor.ts';
import type { DiskPlace, MachineSpec } from '../qemu/machine.ts';
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
    cmdline: boot.kernel === undefined ? boot.cmdline : [boot.cmdline, ...addedWords(spec, boot)].join(' '),
    ...(firmware === undefined ? {} : { firmware }),
    ...(display === 'none' ? {} : { display }),
    ...diskPlaces(spec),
    nics: [spec.network, ...spec.cards].map(({ mac, mtu, model }) => ({
      mac,
      ...(mtu === undefined ? {} : { mtu }),
      ...(model === 'virtio' ? {} : { model }),
    })),
    serialLog,
    extraArgs: [],
  };
}

/**
 * How disks and media stand in the machine; nothing for one whose disks are all as they were before there was a choice.
 */
function diskPlaces(spec: Spec): Pick<MachineSpec, 'disks' | 'media'> {
  const isUsual =
    writtenDisks(spec).length === spec.disks.length && spec.disks.every((disk) => busOf(disk) === 'virtio');
  const order = bootOrder(spec);
  if (isUsual && order.every((disk, at) => disk === at)) return {};
  const placeOf = (disk: Spec['disks'][number]): DiskPlace => {
    const turn = order.indexOf(spec.disks.indexOf(disk));
    return { bus: busOf(disk), ...(turn < 0 ? {} : { bootIndex: turn }) };
  };
  const written = writtenDisks(spec);
  const media = spec.disks.filter((disk) => !written.includes(disk));
  return {
    disks: written.map(placeOf),
    media: media.map((disk) => ({
      ...placeOf(disk),
      ...{ path: disk.path, format: disk.format, cdrom: disk.cdrom, hash: mediumHash(disk.path) },
    })),
  };
}

/**
 * The disks that the machine tries to boot from, by their place in the spec; none for a machine with a kernel of ours.
 */
function bootOrder({ boot, disks }: Spec): number[] {
  if (!('from' in boot)) return [];
  return boot.order ?? disks.map((_, index) => index);
}

/**
 * What the guest's kernel is told beside the words of the spec. An emulated guest's time stamp counter is the host's,
 * and Linux is told its rate where the host knows it: measuring it at boot goes wrong when the host is busy. A microvm
 * has nothing to measure against and hung (in 5 of 6 starts); a q35 was seen once with a clock that gained five minutes
 * in eight seconds.
 */
export function addedWords(
  spec: Pick<Spec, 'machine' | 'boot'>,
  boot: Pick<BootFiles, 'kernel' | 'cmdline'>,
): string[] {
  const isUnwanted = 'clockRate' in spec.boot && !spec.boot.clockRate;
  if (boot.kernel === undefined || isUnwanted || spec.machine.accel !== 'tcg') return [];
  const khz = tscKhz();
  return khz === undefined || boot.cmdline.includes('tsc_early_khz=') ? [] : [`tsc_early_khz=${khz}`];
}
