// What both nodes of a pair must agree on before a checkpoint may travel: the machine, to the last detail, and how it
// is protected. Paths differ between hosts and do not count; the kernel and initrd are in RAM once the guest runs.

import { createHash } from 'node:crypto';
import type { NodeConfig } from '../config.ts';

/** A hash of all that makes device state loadable on the other side. */
export function machineHash(config: NodeConfig): string {
  const { machine, accel, cpu, vcpus, ramBytes, nics } = config.machine;
  const extraArgs = config.machine.extraArgs;
  const { display, firmware } = config.machine;
  // The media by their contents: their paths may differ.
  const media = (config.machine.media ?? []).map((medium) => ({ ...medium, path: '' }));
  const disks = [config.machine.disks ?? [], media];
  const devices = [nics, disks, display ?? '', firmware?.hash ?? '', firmware?.secure ?? false, extraArgs];
  const text = JSON.stringify([machine, accel, cpu ?? '', vcpus, ramBytes, devices, config.protect.mode]);
  return createHash('sha256').update(text).digest('hex').slice(0, 32);
}
