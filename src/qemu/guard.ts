// What only QEMU knows of a machine that is to be protected, or that was just loaded: does it run, does every virtio
// device still work, and would its state travel at all.
//
//    open       blocked-reasons of a migration: a device whose state cannot be saved refuses the machine
//    ask        run state, broken virtio devices, rings inside a kernel image; some 0.2 ms for each device
//
// A load can leave a machine that looks alive and is not: QEMU marks a virtio device broken when its rings make no
// sense, and serves it no more; `cont` does nothing to a machine that sleeps. Neither is an error of any command.
//
// Kernel images: QEMU writes the segments of an ELF kernel into RAM at every reset, and snapshot-load resets the
// machine before the devices read their rings. Rings that a driver keeps inside such an image (in .bss or .data) are
// then those of the kernel file. The RAM is put right afterwards, the devices are not. A bzImage is not written by the
// reset.
//
// What QEMU answers may be what a guest that has taken it over wants: nothing here throws at an odd answer.

import { ColoError, errorCodes, errorText } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import { virtioDevicesMax, virtioQueuesMax } from './limits.ts';
import type { Qmp } from './qmp.ts';
import { countIn, textIn } from './reply.ts';

/** What was found. */
export interface Condition {
  /** QEMU's word: `running`, `paused`, `suspended`, `io-error` ... */
  runState: string;
  /** Devices that do not work, each with what is wrong; none in a machine that is well. */
  faults: string[];
}

interface VirtioDevice {
  name: string;
  path: string;
  queues: number;
}

/** Guest-physical addresses, the end not included. */
export interface AddressRange {
  start: number;
  end: number;
}

export class Guard {
  private readonly qmp: Qmp;
  private readonly devices: readonly VirtioDevice[];
  private readonly images: readonly AddressRange[];

  private constructor(qmp: Qmp, devices: readonly VirtioDevice[], images: readonly AddressRange[]) {
    this.qmp = qmp;
    this.devices = devices;
    this.images = images;
  }

  /** Throws COLO_E_MACHINE for a machine whose state cannot be saved. */
  static async open(qmp: Qmp, log: Log): Promise<Guard> {
    const blocked = blockedReasons(await qmp.execute('query-migrate'));
    if (blocked.length > 0)
      throw new ColoError(errorCodes.machine, `QEMU cannot save this machine: ${blocked.join('; ')}`, {
        hint: 'docs/guests.md says which devices can be protected, and what to take instead of the others.',
      });
    return new Guard(qmp, await virtioDevices(qmp, log), imagesInRam(await qmp.human('info roms')));
  }

  async ask(): Promise<Condition> {
    const status = this.devices.map(({ path }) => ({ execute: 'x-query-virtio-status', arguments: { path } }));
    const replies = this.qmp.executeTogether([{ execute: 'query-status' }, ...status]);
    const [state, ...found] = await Promise.all(replies);
    const broken = this.devices.filter((_, index) => isObject(found[index]) && found[index]['broken'] === true);
    const faults = broken.map(({ name, path }) => `the device ${name} (${path}) is broken: its rings make no sense`);
    return {
      runState: isObject(state) ? textIn(state['status']) : 'unknown',
      faults: [...faults, ...(await this.misplacedRings())],
    };
  }

  /** Only machines with an ELF kernel are asked, since no other has an image that a reset writes. */
  private async misplacedRings(): Promise<string[]> {
    if (this.images.length === 0) return [];
    const faults: string[] = [];
    for (const { name, path, queues } of this.devices) {
      const asks = Array.from({ length: queues }, (_, queue) => ({
        execute: 'x-query-virtio-queue-status',
        arguments: { path, queue },
      }));
      const rings = (await Promise.all(this.qmp.executeTogether(asks))).flatMap(ringRanges);
      if (rings.some((ring) => this.images.some((image) => overlap(ring, image))))
        faults.push(`the rings of ${name} lie inside the kernel's image, which every load writes anew`);
    }
    return faults;
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Why QEMU would refuse to migrate; empty when it would not. */
export function blockedReasons(reply: unknown): string[] {
  const reasons: unknown = isObject(reply) ? reply['blocked-reasons'] : undefined;
  return Array.isArray(reasons) ? reasons.map(textIn) : [];
}

async function virtioDevices(qmp: Qmp, log: Log): Promise<VirtioDevice[]> {
  try {
    const reply = await qmp.execute('x-query-virtio');
    const listed = Array.isArray(reply) ? reply.filter(isObject).slice(0, virtioDevicesMax) : [];
    const devices: VirtioDevice[] = [];
    for (const one of listed) {
      const path = textIn(one['path']);
      const status = await qmp.execute('x-query-virtio-status', { path });
      const queues = isObject(status) ? Math.min(virtioQueuesMax, countIn(status['num-vqs'])) : 0;
      devices.push({ name: textIn(one['name']), path, queues });
    }
    return devices;
  } catch (error) {
    log.warn({ error: errorText(error) }, 'this QEMU does not say whether its virtio devices work');
    return [];
  }
}

const romLine = /^addr=([0-9a-f]+) size=0x([0-9a-f]+) mem=ram name=/;
/** No machine of ours has RAM between 3 and 4 GiB: firmware lies there, which `info roms` may call RAM too. */
const firmwareRange = { start: 3 * 2 ** 30, end: 4 * 2 ** 30 };

/** The parts of guest RAM that QEMU writes at every reset, by `info roms`. */
export function imagesInRam(text: string): AddressRange[] {
  return text.split('\n').flatMap((line) => {
    const match = romLine.exec(line.trim());
    if (match?.[1] === undefined || match[2] === undefined) return [];
    const start = Number.parseInt(match[1], 16);
    const range = { start, end: start + Number.parseInt(match[2], 16) };
    return overlap(range, firmwareRange) ? [] : [range];
  });
}

/** Where the three parts of a queue lie (virtio 1.2, 2.7); none while the driver has not set it up. */
export function ringRanges(status: unknown): AddressRange[] {
  if (!isObject(status)) return [];
  const entries = countIn(status['vring-num']);
  const part = (name: string, bytes: number) => {
    const start = countIn(status[name]);
    return start === 0 ? [] : [{ start, end: start + bytes }];
  };
  return [
    ...part('vring-desc', 16 * entries),
    ...part('vring-avail', 6 + 2 * entries),
    ...part('vring-used', 6 + 8 * entries),
  ];
}

function overlap(one: AddressRange, other: AddressRange): boolean {
  return one.start < other.end && other.start < one.end;
}
