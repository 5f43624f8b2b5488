// The spec of a protected VM: what an operator writes in YAML, checked once, whole, with one clear line per mistake.
// Everything behind it (colod, QEMU's command line) takes the checked form and checks nothing again.

import { constants } from 'node:fs';
import { access, readFile, stat } from 'node:fs/promises';
import { isIP } from 'node:net';
import { dirname, resolve } from 'node:path';
import { LineCounter, parseDocument } from 'yaml';
import { z } from 'zod';
import { ColoError, errorCodes, errorText } from '../base/errors.ts';
import { deviceHint, deviceName } from './devices.ts';
import { durationSchema, sizeSchema } from './size.ts';

const MiB = 1024 ** 2;

const port = z.number({ error: 'a port number from 1 to 65535' }).int().min(1).max(65535);
const mac = z
  .string()
  .regex(/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/, { error: 'an address such as "52:54:00:12:34:56", in lower case' })
  .refine((text) => (Number.parseInt(text.slice(0, 2), 16) & 1) === 0, {
    error: 'a unicast address (first byte even)',
  });

const machineSchema = z.strictObject({
  type: z.enum(['pc', 'q35', 'microvm']).default('q35'),
  accel: z.enum(['tcg', 'kvm']).default('tcg'),
  /** QEMU's name of a CPU model; the default has no RDRAND, which would make the two copies differ. */
  cpu: z.string().min(1).optional(),
  /** vm: the guest's real-time clock follows the guest's own clock, which stands still while the guest does. */
  rtc: z.enum(['host', 'vm'], { error: '"host" or "vm"' }).default('host'),
  vcpus: z.number().int().min(1).max(16).default(1),
  memory: sizeSchema({ min: 64 * MiB, max: 64 * 1024 * MiB, example: '256M' }).prefault('256M'),
  /** uefi: from flash, with variables that persist. uefi-secure: with Secure Boot, on a q35. */
  firmware: z.enum(['bios', 'uefi', 'uefi-secure'], { error: '"bios", "uefi" or "uefi-secure"' }).default('bios'),
  /** The file of the UEFI variables; beside the first disk when left out. */
  variables: z.string().min(1).optional(),
  /** A screen, from the BIOS on. */
  display: deviceName('display', ['none', 'vga']).default('none'),
  tpm: z.never({ error: deviceHint('tpm', 'tpm') }).optional(),
});

const bootSchema = z.union(
  [
    z.strictObject({ guest: z.enum(['demo', 'bare']) }),
    /** The machine starts from its first disk, by its BIOS. */
    z.strictObject({
      from: z.literal('disk'),
      /** Which of the disks are tried, by their place in the list; all of them in their order when left out. */
      order: z.array(z.number().int().min(0).max(7)).min(1).max(8).optional(),
    }),
    z.strictObject({
      kernel: z.string().min(1),
      initrd: z.string().min(1).optional(),
      cmdline: z.string().default(''),
      /**
       * Emulated: whether the kernel is told the rate of its time stamp counter, as a further word of its command line.
       */
      clockRate: z.boolean().default(true),
    }),
  ],
  { error: 'either "guest: demo" (or bare), or "from: disk", or "kernel", "initrd" and "cmdline"' },
);

/** An address of IPv4 or IPv6. */
const anyAddress = z.string().refine((text) => isIP(text) !== 0, { error: 'an IPv4 or IPv6 address' });

const bypassSchema = z.strictObject({
  protocol: z.enum(['tcp', 'udp']),
  /** The other end; any when absent. */
  address: anyAddress.optional(),
  /** The port at either end. */
  port,
});

/** The guest's card tells it this MTU; a guest that is told none takes 1500. At least what IPv6 needs. */
const mtu = z.number({ error: 'a number of bytes from 1280 to 65521' }).int().min(1280).max(65521).optional();

/** e1000 and its like are for guests without a driver for virtio. */
const cardModel = deviceName('card', ['virtio', 'e1000', 'e1000e', 'rtl8139', 'vmxnet3']).default('virtio');

const networkSchema = z.strictObject({
  mac: mac.default('52:54:00:12:34:56'),
  model: cardModel,
  /** The guest's IPv4 address. On one machine it is in the user-mode network 10.0.2.0/24 (checkLocal). */
  address: z
    .string()
    .refine((text) => isIP(text) === 4, { error: 'an IPv4 address' })
    .default('10.0.2.15'),
  mtu,
  forwards: z
    .array(z.strictObject({ protocol: z.enum(['tcp', 'udp']).default('tcp'), host: port, guest: port }))
    .max(64)
    .default([]),
  /** Traffic that is not protected: it leaves uncompared, and no survivor can carry it on. Never a default. */
  bypass: z.array(bypassSchema).max(32).default([]),
  /** A folder for pcap files of what each guest said and of what was released. */
  pcap: z.string().min(1).optional(),
});

const cardSchema = z.strictObject({
  mac,
  model: cardModel,
  /** The guest's IPv4 address on this card, to be announced after a takeover; what it claims itself is learned. */
  address: z
    .string()
    .refine((text) => isIP(text) === 4, { error: 'an IPv4 address' })
    .optional(),
  mtu,
  /** On several hosts: the bridge that this card is on, on every host. On one machine all cards are on one network. */
  bridge: z
    .string()
    .regex(/^[a-zA-Z0-9._-]{1,15}$/, { error: 'the name of a bridge' })
    .default('br0'),
});

/** What the proxy does so that two equal guests answer alike (docs/comparison.md). */
const similaritySchema = z.strictObject({
  /**
   * clamped: no TCP timestamp leaves that the secondary has not reached. coarse: also in steps of 16. passed: as it is.
   */
  timestamps: z.enum(['clamped', 'coarse', 'passed']).default('clamped'),
  /** merged: a client is given an ACK when the slower guest has given it. held: with the primary's next segment. */
  acks: z.enum(['merged', 'held']).default('merged'),
  /** exact: the smaller of both windows. coarse: that, in steps of 8 KiB. */
  window: z.enum(['exact', 'coarse']).default('exact'),
  /** tolerant: the Date header of an HTTP answer may differ by a second, the primary's leaves. exact: a checkpoint. */
  dates: z.enum(['tolerant', 'exact']).default('tolerant'),
});

const diskSchema = z.strictObject({
  /** The image on the node that starts the VM; a secondary makes its own replica. */
  path: z.string().min(1),
  format: z.enum(['raw', 'qcow2'], { error: '"raw" or "qcow2"' }),
  /** Which controller it stands at. */
  bus: deviceName('disk', ['virtio', 'scsi', 'sata']).optional(),
  /** Never written, and never copied: the file must be at the same path on every node. */
  readonly: z.boolean().default(false),
  /** A CD: read-only, with a drive that can be ejected. */
  cdrom: z.boolean().default(false),
  /** local: a write is done with the primary's own disk. replicated: only with the secondary's disk as well. */
  flush: z.enum(['local', 'replicated'], { error: '"local" or "replicated"' }).default('local'),
});

export const protectSchema = z.strictObject({
  /** colo: both run and their answers are compared. remus: the secondary stands still, output waits for commits. */
  mode: z.enum(['colo', 'remus', 'none']).default('colo'),
  /** remus: time between two captures. */
  interval: durationSchema({ min: 5, max: 10_000, example: '25ms' }).prefault('25ms'),
  /** remus: time between two states that the secondary loads to see that it can. */
  tryLoad: durationSchema({ min: 1000, max: 3_600_000, example: '60s' }).prefault('60s'),
  /** colo: longest epoch. */
  epochMax: durationSchema({ min: 100, max: 600_000, example: '10s' }).prefault('10s'),
  /** colo: how long a packet waits for its equal. */
  compareTimeout: durationSchema({ min: 10, max: 10_000, example: '200ms' }).prefault('200ms'),
  /** colo: extra time after a load, while the secondary is cold. */
  patience: durationSchema({ min: 0, max: 10_000, example: '200ms' }).prefault('200ms'),
  /** Dirty pages that force a checkpoint: bounds what one checkpoint stages. */
  dirtyMax: sizeSchema({ min: MiB, max: 4096 * MiB, example: '32M' }).prefault('32M'),
  /** After each apply, compare the whole RAM of both sides: for tests, since the pause grows with the RAM. */
  verify: z.boolean().default(false),
  similarity: similaritySchema.prefault({}),
  tracker: z.enum(['auto', 'userfaultfd', 'soft-dirty', 'compare']).default('auto'),
});

const keysOfSpec = {
  vm: z.string().regex(/^[a-z0-9][a-z0-9-]{0,39}$/, { error: 'a name of lower-case letters, digits and "-"' }),
  machine: machineSchema.prefault({}),
  boot: bootSchema,
  disks: z.array(diskSchema).max(8).default([]),
  /** Where secondaries keep their replicas of the disks; a folder per node is made in it. */
  replicaFolder: z.string().min(1).optional(),
  network: networkSchema.prefault({}),
  /** Further network cards. */
  cards: z.array(cardSchema).max(7).default([]),
  protect: protectSchema.prefault({}),
};

export const specSchema = z.strictObject(keysOfSpec, {
  error: ({ code }) =>
    code === 'invalid_type' ? 'a spec is keys with values, of which "vm" and "boot" are needed' : undefined,
});

/** What goes together: without it QEMU would refuse the machine in words of its own. */
function checkMachine(spec: Spec, source: string): Spec {
  const { type, firmware, display, variables } = spec.machine;
  const refuse = (text: string, hint: string) =>
    new ColoError(errorCodes.input, `${source}: machine.${text}`, { hint });
  if (firmware !== 'bios' && type === 'microvm')
    throw refuse(`firmware: a microvm has no flash for ${firmware}`, 'write "type: q35"');
  if (firmware === 'uefi-secure' && type !== 'q35')
    throw refuse('firmware: Secure Boot needs a machine with a management mode', 'write "type: q35"');
  if (firmware === 'bios' && variables !== undefined)
    throw refuse('variables: a BIOS keeps none', 'write "firmware: uefi", or leave it out');
  if (display !== 'none' && type === 'microvm')
    throw refuse('display: a microvm has no place for one', 'write "type: q35", or "display: none"');
  return spec;
}

export type Spec = z.output<typeof specSchema>;
export type SpecInput = z.input<typeof specSchema>;
export type Protect = Spec['protect'];

/** Checks a parsed document; every mistake becomes a line of one error of code `input`. */
export function checkSpec(document: unknown, source: string): Spec {
  const result = specSchema.safeParse(document);
  if (result.success)
    return checkForwards(checkCards(checkDisks(checkMachine(result.data, source), source), source), source);
  const lines = result.error.issues.map((issue) => `${issue.path.map(String).join('.') || '(top)'}: ${issue.message}`);
  throw new ColoError(errorCodes.input, `${source}: ${lines.join('\n  ')}`, {
    hint: 'examples/ has spec files to start from; docs/operating.md explains every key',
  });
}

function checkCards(spec: Spec, source: string): Spec {
  const other = [spec.network, ...spec.cards].find(({ model, mtu: told }) => model !== 'virtio' && told !== undefined);
  if (other !== undefined)
    throw new ColoError(errorCodes.input, `${source}: a card of kind ${other.model} cannot tell its guest an MTU`, {
      hint: 'leave "mtu" out and set it in the guest, or write "model: virtio"',
    });
  if (spec.machine.type === 'microvm' && [spec.network, ...spec.cards].some(({ model }) => model !== 'virtio'))
    throw new ColoError(errorCodes.input, `${source}: a microvm has only virtio cards`, {
      hint: 'write "model: virtio"',
    });
  const macs = [spec.network, ...spec.cards].map((card) => card.mac);
  const twice = macs.find((one, index) => macs.indexOf(one) !== index);
  if (twice === undefined) return spec;
  throw new ColoError(errorCodes.input, `${source}: two cards have the address ${twice}`, {
    hint: 'give each card a "mac" of its own',
  });
}

function checkForwards(spec: Spec, source: string): Spec {
  const names = spec.network.forwards.map((one) => `${one.protocol} port ${one.host}`);
  const twice = names.find((one, index) => names.indexOf(one) !== index);
  if (twice === undefined) return spec;
  throw new ColoError(errorCodes.input, `${source}: network.forwards: ${twice} of this host is given twice`, {
    hint: 'give each forward a "host" port of its own',
  });
}

function checkDisks(spec: Spec, source: string): Spec {
  const refuse = (text: string, hint: string) => new ColoError(errorCodes.input, `${source}: ${text}`, { hint });
  for (const [index, { bus, cdrom }] of spec.disks.entries()) {
    if (spec.machine.type === 'microvm' && (cdrom || (bus ?? 'virtio') !== 'virtio'))
      throw refuse(`disks.${index}: a microvm has only virtio disks`, 'write "bus: virtio", or "type: q35"');
    if (cdrom && bus === 'virtio')
      throw refuse(`disks.${index}.bus: there is no CD drive of virtio`, 'write "bus: sata" or "bus: scsi"');
  }
  const sata = spec.disks.filter((disk) => busOf(disk) === 'sata').length;
  const sataPlaces = spec.machine.type === 'pc' ? 4 : 6;
  if (sata > sataPlaces)
    throw refuse(`disks: a ${spec.machine.type} has ${sataPlaces} places for sata`, 'use "bus: scsi"');
  if (!('from' in spec.boot)) return spec;
  if (spec.disks.length === 0)
    throw refuse('"boot: {from: disk}" needs a disk', 'add it: disks: [{path: IMAGE, format: qcow2}]');
  const { order = [] } = spec.boot;
  const wrong = order.find((one, at) => one >= spec.disks.length || order.indexOf(one) !== at);
  if (wrong === undefined) return spec;
  throw refuse(`boot.order: ${wrong} is no disk of the list, or is there twice`, 'the first disk is 0');
}

/** The controller of a disk: what the spec says, or what suits it. */
export function busOf({ bus, cdrom }: Pick<Spec['disks'][number], 'bus' | 'cdrom'>): 'virtio' | 'scsi' | 'sata' {
  return bus ?? (cdrom ? 'sata' : 'virtio');
}

/** Disks that the guest writes: each secondary has a replica of them. */
export function writtenDisks(spec: Pick<Spec, 'disks'>): Spec['disks'] {
  return spec.disks.filter(({ readonly, cdrom }) => !readonly && !cdrom);
}

const localAddress = /^10\.0\.2\.(1[5-9]|[2-9]\d|1\d\d|2[0-4]\d)$/;

/** What a VM on this one machine needs besides: an address of the network that the gateway makes. */
export function checkLocal(spec: Spec, source: string): void {
  if (localAddress.test(spec.network.address)) return;
  throw new ColoError(errorCodes.input, `${source}: network.address: an address from 10.0.2.15 to 10.0.2.249`, {
    hint: 'on one machine the guest is in the network 10.0.2.0/24; on a cluster it has an address of the bridge',
  });
}

/** Reads and checks a spec file; paths in it are relative to it and must be readable. */
export async function readSpec(path: string): Promise<Spec> {
  const document = await readDocument(path);
  const folder = dirname(resolve(path));
  const spec = withFolder(checkSpec(document, path), folder);
  if (spec.network.pcap !== undefined) spec.network.pcap = resolve(folder, spec.network.pcap);
  if (!('kernel' in spec.boot)) return spec;
  const boot = { ...spec.boot, kernel: resolve(folder, spec.boot.kernel) };
  if (spec.boot.initrd !== undefined) boot.initrd = resolve(folder, spec.boot.initrd);
  for (const file of [boot.kernel, boot.initrd]) if (file !== undefined) await refuseUnreadable(file, path);
  return { ...spec, boot };
}

/**
 * Reads and checks a spec file for nodes elsewhere: as it was written, with absolute paths, which every node that uses
 * them must have.
 */
export async function readSpecForNodes(path: string): Promise<Record<string, unknown>> {
  const spec = checkSpec(await readDocument(path), path);
  const document = (await readDocument(path)) as Record<string, unknown>;
  const folder = dirname(resolve(path));
  const { disks, replicaFolder, machine } = withFolder(spec, folder);
  if (machine.variables !== undefined)
    document['machine'] = { ...(document['machine'] as object), variables: machine.variables };
  if (disks.length > 0) document['disks'] = disks;
  if (replicaFolder !== undefined) document['replicaFolder'] = replicaFolder;
  const { pcap } = spec.network;
  if (pcap !== undefined) document['network'] = { ...(document['network'] as object), pcap: resolve(folder, pcap) };
  if ('kernel' in spec.boot) {
    const { kernel, initrd } = spec.boot;
    const absolute = initrd === undefined ? {} : { initrd: resolve(folder, initrd) };
    document['boot'] = { ...spec.boot, kernel: resolve(folder, kernel), ...absolute };
  }
  return document;
}

async function readDocument(path: string): Promise<unknown> {
  const text = await readFile(path, 'utf8').catch((cause: unknown) => {
    throw new ColoError(errorCodes.input, `cannot read ${path}`, {
      cause,
      hint: 'name a spec file, such as examples/demo.yaml',
    });
  });
  return parseDocumentText(text, path);
}

/** The document that a text holds; whatever is wrong with it as YAML is one line. */
export function parseDocumentText(text: string, source: string): unknown {
  const refusal = (problem: unknown) => {
    const line = (errorText(problem).split('\n')[0] ?? '').replace(/:$/, '');
    return new ColoError(errorCodes.input, `${source}: ${line}`, { hint: 'this is not YAML that colo can read' });
  };
  const document = parseDocument(text, { lineCounter: new LineCounter(), prettyErrors: true, logLevel: 'silent' });
  const [problem] = document.errors;
  if (problem !== undefined) throw refusal(problem);
  try {
    return document.toJS();
  } catch (cause) {
    // An alias of nothing, or aliases of aliases that would fill the memory.
    throw refusal(cause);
  }
}

/** The same spec, with the disks' paths relative to `folder`. */
function withFolder(spec: Spec, folder: string): Spec {
  const disks = spec.disks.map((disk) => ({ ...disk, path: resolve(folder, disk.path) }));
  const { replicaFolder } = spec;
  const machine = { ...spec.machine };
  if (machine.variables !== undefined) machine.variables = resolve(folder, machine.variables);
  return {
    ...spec,
    machine,
    disks,
    ...(replicaFolder === undefined ? {} : { replicaFolder: resolve(folder, replicaFolder) }),
  };
}

async function refuseUnreadable(file: string, source: string): Promise<void> {
  const hint = 'correct the path under boot:';
  await access(file, constants.R_OK).catch((cause: unknown) => {
    throw new ColoError(errorCodes.input, `${source}: cannot read ${file}`, {
      cause,
      hint,
    });
  });
  if ((await stat(file)).isDirectory())
    throw new ColoError(errorCodes.input, `${source}: ${file} is a folder`, { hint });
}
