// What two hosts must have alike before a checkpoint may travel, as a pure comparison: what both nodes were told, and
// what their QEMUs made of it. Each difference is named with the values of both sides, in one line.
//
//   session ─► traits of the primary ─► the secondary compares what it was told ─► starts its QEMU ─► compares the rest
//     ─► ready
//
// QEMU must be of one release (7.2): within it, updates keep the format of device state, and hosts can be updated one
// after the other. Machine type and CPU must be equal, as QEMU has them and not as the spec names them. That the state
// loads, the first apply of a pairing shows, before the VM is called protected.

import { z } from 'zod';
import { ColoError, errorCodes } from '../../base/errors.ts';
import type { NodeConfig } from '../config.ts';
import { differencesMax, traitsMax, tscTolerance } from '../limits.ts';
import type { GuestVm } from '../platform.ts';

/** The message on the bulk link; checkpoint/message.ts and disk/message.ts have the other types. */
export const traitsType = 16;

/** Values by the name that a person reads. */
export type Traits = Readonly<Record<string, string>>;

export interface Machine {
  node: string;
  /** What the node was told, and what its QEMU made of it. */
  told: Traits;
  made: Traits;
}

const traitsSchema = z
  .record(z.string().max(64), z.string().max(1000))
  .refine((traits) => Object.keys(traits).length <= traitsMax, { error: 'too many traits' });
const machineSchema = z.object({ node: z.string().min(1).max(64), told: traitsSchema, made: traitsSchema });

export function encodeMachine(machine: Machine): Uint8Array {
  return Buffer.from(JSON.stringify(machine));
}

export function parseMachine(payload: Uint8Array): Machine {
  const parsed = machineSchema.safeParse(parseJson(payload));
  if (parsed.success) return parsed.data;
  throw new ColoError(errorCodes.channel, 'the peer sent something else than what its machine is');
}

/** What a node was told: all that makes device state loadable on the other side. Paths differ between hosts. */
export function toldTraits({ machine, protect }: NodeConfig): Traits {
  return {
    'machine.type': machine.machine,
    'machine.accel': machine.accel,
    'machine.cpu': machine.cpu ?? 'the default',
    'machine.vcpus': String(machine.vcpus),
    'machine.memory': `${machine.ramBytes / 2 ** 20}M`,
    'network cards': JSON.stringify(machine.nics),
    'protect.mode': protect.mode,
    'extra arguments': machine.extraArgs.join(' '),
  };
}

const release = 'the release of QEMU';
const tscRate = 'the TSC rate in kHz';

/** What its QEMU made of it; none where the platform has no QEMU. */
export function madeTraits({ qemuVersion, facts }: Pick<GuestVm, 'qemuVersion' | 'facts'>): Traits {
  if (facts === undefined) return {};
  const tsc: Traits = facts.tscKhz === 0 ? {} : { [tscRate]: String(facts.tscKhz) };
  return { [release]: qemuVersion, 'the machine type': facts.type, ...facts.cpu, ...tsc };
}

/** A trait that only one side names counts as different. */
function differences(what: 'told' | 'made', theirs: Machine, ours: Machine): string[] {
  const names = [...new Set([...Object.keys(theirs[what]), ...Object.keys(ours[what])])];
  return names.flatMap((name) => {
    const [there, here] = [theirs[what][name] ?? 'none', ours[what][name] ?? 'none'];
    return isAlike(name, there, here) ? [] : [`${name} is ${there} on ${theirs.node} and ${here} on ${ours.node}`];
  });
}

function isAlike(name: string, there: string, here: string): boolean {
  if (name === release) return releaseOf(there) === releaseOf(here);
  if (name !== tscRate) return there === here;
  return Math.abs(Number(there) - Number(here)) <= Number(here) * tscTolerance;
}

function releaseOf(version: string): string {
  return version.split('.').slice(0, 2).join('.');
}

/** Throws when they are not alike in what they were told, or in what they made of it. */
export function refuseUnlike(what: 'told' | 'made', theirs: Machine, ours: Machine): void {
  const all = differences(what, theirs, ours);
  if (all.length === 0) return;
  const rest = all.length > differencesMax ? `; and ${all.length - differencesMax} more` : '';
  throw new ColoError(errorCodes.input, `the hosts differ: ${all.slice(0, differencesMax).join('; ')}${rest}`, {
    hint: 'both need the same spec, one release of QEMU, and a machine.cpu that both hosts can give',
  });
}

function parseJson(payload: Uint8Array): unknown {
  try {
    return JSON.parse(Buffer.from(payload).toString('utf8'));
  } catch {
    return undefined;
  }
}
