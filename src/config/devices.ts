// Which devices a protected machine can have: one table, from which the spec's words, the refusals and docs/guests.md
// are made (docs/guests.ts). What a guest is to keep through a failover has to be in the RAM file or in QEMU's device
// state.
//
//    supported   has a word in the spec; `tested`: with a guest that uses it, by the named test
//    refused     a word that operators try; `instead` says what to take
//
// QEMU itself has the last word: a device that is not migratable, or has memory that nobody covers, refuses the machine
// at its start (qemu/guard.ts, qemu/ram-blocks.ts).

import { z } from 'zod';

export type DeviceKind = 'display' | 'disk' | 'card' | 'tpm' | 'other';

export interface Device {
  kind: DeviceKind;
  /** The spec's word, or the one that people try. */
  name: string;
  /** QEMU's name. */
  qemu: string;
  support: { how: 'supported'; needs: string; tested: string } | { how: 'refused'; why: string; instead: string };
}

const supported = (needs: string, tested: string) => ({ how: 'supported' as const, needs, tested });
const refused = (why: string, instead: string) => ({ how: 'refused' as const, why, instead });

export const devices: readonly Device[] = [
  {
    ...{ kind: 'disk', name: 'virtio', qemu: 'virtio-blk-pci' },
    support: supported('a driver in the guest; microvm: virtio-blk-device', 'test/functional/disk.test.ts'),
  },
  {
    ...{ kind: 'disk', name: 'scsi', qemu: 'virtio-scsi-pci, scsi-hd, scsi-cd' },
    support: supported('a driver in the guest', 'test/functional/disk-buses.test.ts'),
  },
  {
    ...{ kind: 'disk', name: 'sata', qemu: 'ide-hd, ide-cd' },
    support: supported('nothing; AHCI on q35 (6 places), IDE on pc (4)', 'test/functional/disk-buses.test.ts'),
  },
  {
    ...{ kind: 'disk', name: 'nvme', qemu: 'nvme' },
    support: refused('QEMU cannot save it, and 7.2 dies as it tries', 'virtio, scsi or sata'),
  },
  {
    ...{ kind: 'disk', name: 'ide', qemu: 'ide-hd' },
    support: refused('it is called sata here, on every machine', 'sata'),
  },
  {
    ...{ kind: 'card', name: 'virtio', qemu: 'virtio-net-pci' },
    support: supported('a driver in the guest; microvm: virtio-net-device', 'test/failover/faults.test.ts'),
  },
  ...(['e1000', 'e1000e', 'rtl8139', 'vmxnet3'] as const).map((name) => ({
    ...{ kind: 'card' as const, name, qemu: name },
    support: supported('a driver in the guest; tried without one: saved and loaded', 'test/functional/cards.test.ts'),
  })),
  {
    ...{ kind: 'display', name: 'vga', qemu: 'VGA' },
    support: supported(
      '16 MiB of memory of its own, part of every checkpoint',
      'test/functional/further-memory.test.ts',
    ),
  },
  {
    ...{ kind: 'display', name: 'virtio', qemu: 'virtio-gpu-pci, virtio-vga' },
    support: refused(
      'QEMU puts its whole picture into the device state of every checkpoint, 4 MiB at 1280 x 800, changed or not',
      'vga',
    ),
  },
  {
    ...{ kind: 'display', name: 'ramfb', qemu: 'ramfb' },
    support: refused('QEMU before 8.2 does not save where its picture is, so a survivor shows none', 'vga'),
  },
  {
    ...{ kind: 'display', name: 'qxl', qemu: 'qxl-vga' },
    support: refused(
      'its commands name host memory; it is known to crash a copy that is loaded again and again',
      'vga',
    ),
  },
  {
    ...{ kind: 'display', name: 'vmware', qemu: 'vmware-svga' },
    support: refused('it has two memories of its own, and nobody has tried it', 'vga'),
  },
  {
    ...{ kind: 'display', name: 'cirrus', qemu: 'cirrus-vga' },
    support: refused('nobody has tried it', 'vga, which every guest with a Cirrus driver can use as well'),
  },
  {
    ...{ kind: 'display', name: 'bochs', qemu: 'bochs-display' },
    support: refused('nobody has tried it', 'vga, for which the same driver in the guest works'),
  },
  {
    ...{ kind: 'tpm', name: 'tpm', qemu: 'tpm-crb, tpm-tis' },
    support: refused(
      'its state is in another process (swtpm), which has no moment in common with a checkpoint: a survivor ' +
        'would have keys of another time',
      'a guest that does not need one: Secure Boot works without',
    ),
  },
  {
    ...{ kind: 'other', name: 'usb-serial', qemu: 'usb-serial, usb-net, usb-mtp' },
    support: refused('QEMU cannot save them, and 7.2 dies as it tries', 'the serial line, or a network card'),
  },
  {
    ...{ kind: 'other', name: '9p', qemu: 'virtio-9p-pci, vhost-user-fs-pci' },
    support: refused(
      'files of one host are not on the other, and QEMU does not save a mounted one',
      'a disk, or NFS over the network',
    ),
  },
  {
    ...{ kind: 'other', name: 'ivshmem', qemu: 'ivshmem-plain, ivshmem-doorbell' },
    support: refused('others write its memory, unseen', 'a network card'),
  },
  {
    ...{ kind: 'other', name: 'vhost', qemu: 'vhost-net, vhost-vsock-pci, vhost-user' },
    support: refused(
      "the host's kernel writes the guest's memory and sends its packets, past every comparison",
      'virtio as it is',
    ),
  },
  {
    ...{ kind: 'other', name: 'vfio', qemu: 'vfio-pci, usb-host' },
    support: refused('a device of one host is not on the other', 'a virtual one'),
  },
];

function named(kind: DeviceKind, name: string): Device | undefined {
  return devices.find((device) => device.kind === kind && device.name === name);
}

/** Why a device is refused, and what to take; '' for one that is not. */
function refusalOf(device: Device | undefined): string {
  const support = device?.support;
  return support?.how === 'refused' ? `cannot be protected: ${support.why}; take ${support.instead}` : '';
}

/** Why the device of that kind and name is refused. */
export function deviceHint(kind: DeviceKind, name: string): string {
  return refusalOf(named(kind, name));
}

/** A word of the spec for a device of that kind; one that is known and refused is refused with what to take instead. */
export function deviceName<const Words extends readonly [string, ...string[]]>(kind: DeviceKind, words: Words) {
  return z.enum(words, {
    error: ({ input }) => {
      const device = typeof input === 'string' ? named(kind, input) : undefined;
      return device?.support.how === 'refused'
        ? `${device.name} ${refusalOf(device)}`
        : `one of ${words.map((word) => `"${word}"`).join(', ')}`;
    },
  });
}
