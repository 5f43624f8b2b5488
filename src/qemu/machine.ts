// The QEMU command line of a protected machine: a pure function of the spec and the node's files.
//
// Both nodes start QEMU with the same line apart from the files (and -S on the secondary): device state only loads
// into the machine it was saved from. What must be as it is, and why:
//
//   memory-backend-file,share=on      guest RAM is a file on tmpfs that the node maps too
//   prealloc=on                       a full tmpfs is an error at the start, not a SIGBUS in the middle of service
//   suppress-vmdesc, send-configuration=off
//                                     snapshot-load asks for these sections, xen-save-devices-state never writes them
//   blockdev vmstate                  the carrier, a small qcow2 through which device state is loaded (carrier.ts)
//   netdev stream                     each card is an ordinary Unix socket of the node: the guest has no other way out
//   no default devices                what is in the machine is what is written here; memory of a device's own has to
//                                     be known (furtherBlocks)
//   pflash                            the firmware's code, read-only, and its variables, which QEMU writes through to a
//                                     file of this node: at each write, and as a whole when it runs after a load
//   only-migratable                   a device whose state cannot be saved ends QEMU at the start with its name (nvme
//                                     and usb-serial crash QEMU 7.2 at the save)
//   disable_s3, disable_s4            QEMU's `cont` does nothing to a machine that sleeps, and a load leaves one
//                                     asleep: a guest that slept once would be a secondary that never runs
//   blockdev disk0 ...                what the guest sees as its disk; below it are the node's own files:
//
//       primary    disk0 (raw or qcow2) ── disk0-file (the image)
//       secondary  disk0 (qcow2 overlay) ─┬─ disk0-file
//                                         └─ disk0-replica (raw, read-only) ── disk0-replica-file
//
//     The replica is written by us while the guest stands still, so QEMU neither locks it nor keeps any of it. The
//     overlay ignores flushes until a takeover: a load throws it away anyway (vm.ts, keepDisks).
//
// QEMU connects to our sockets, monitor included: when its first bytes arrive it is ready, and nothing is polled.

import { join } from 'node:path';
import { type FurtherBlock, ramBlockName } from './ram-blocks.ts';

export type CardModel = 'virtio' | 'e1000' | 'e1000e' | 'rtl8139' | 'vmxnet3';

export interface DiskPlace {
  bus: 'virtio' | 'scsi' | 'sata';
  /** Its turn when the machine looks for what to boot from; none when left out. */
  bootIndex?: number;
}

export interface Medium extends DiskPlace {
  path: string;
  format: 'raw' | 'qcow2';
  cdrom: boolean;
  /** The hash of its contents: two nodes must have the same. */
  hash: string;
}

/** What else there is, and why it is not here: config/devices.ts. */
export type Display = 'vga';

export interface Firmware {
  /** The file of its code. */
  code: string;
  /** The file that its variables begin as. */
  variables: string;
  /** Secure Boot: variables are written by the machine's management mode alone. */
  secure: boolean;
  /** The size of the variables. */
  variablesBytes: number;
  /** A hash of both files: two nodes must have the same. */
  hash: string;
}

export interface MachineSpec {
  machine: 'pc' | 'q35' | 'microvm';
  accel: 'tcg' | 'kvm';
  /** A model with its features, as QEMU writes it; undefined: that of `defaultCpus`. */
  cpu: string | undefined;
  vcpus: number;
  /** A multiple of 1 MiB. */
  ramBytes: number;
  kernel: string | undefined;
  initrd: string | undefined;
  cmdline: string;
  /**
   * One per guest card; each gets its own stream socket. `mtu`: what the card tells the guest; one that is told none
   * takes 1500.
   */
  nics: { mac: string; mtu?: number; model?: CardModel }[];
  /**
   * How the disks of VmFiles.disks stand in the machine, in their order; virtio and the boot order of the list when
   * left out.
   */
  disks?: DiskPlace[];
  /** Disks and CDs that the guest only reads: the same files on every node. */
  media?: Medium[];
  /** A screen, which is shown at VmFiles.screenPath (VNC); none when left out. */
  display?: Display;
  /** UEFI from flash; the machine's BIOS when left out. */
  firmware?: Firmware;
  /**
   * What the guest's real-time clock follows: the host's clock (the default), or the guest's own, which stops with it.
   */
  rtc?: 'host' | 'vm';
  /** The node's file of what the guest writes to its first serial port; QEMU is not told of it. */
  serialLog: string;
  extraArgs: string[];
}

/** One disk of the guest on this node; the paths lie outside of VmFiles.dir and are the owner's. */
export type DiskFiles =
  | { kind: 'image'; path: string; format: 'raw' | 'qcow2' }
  | { kind: 'overlay'; overlayPath: string; replicaPath: string };

/** Files of one VM on this node; all but the disks live in `dir`, a folder of a tmpfs with mode 0700. */
export interface VmFiles {
  dir: string;
  /** The guest's disks in their order; none when left out. */
  disks?: DiskFiles[];
  ramPath: string;
  qmpPath: string;
  /** Where the serial console's pipes are, without their endings (console.ts). */
  consolePath: string;
  nicPaths: string[];
  /** A Unix socket for VNC, where the machine has a display. */
  screenPath: string;
  /** This node's file of the firmware's variables, where the machine has UEFI. It is the owner's, and stays. */
  variablesPath?: string;
  vmstatePath: string;
  deviceStatePath: string;
  /** Under KVM: the page that holds QEMU's clock (clock-page.ts). */
  clockPath: string;
}

// No RDRAND and no RDSEED: the two guests would draw different numbers. qemu64 is an AMD model, so the guest's kernel
// does not isolate page tables against Meltdown, which costs much under TCG; the additions make it x86-64-v2, which
// every host with KVM has. There are hosts whose KVM runs all of it and names little of it as supported, so under KVM
// what a host lacks is left out of the default model; two hosts that left out different things are no pair
// (node/pairing/alike.ts).
const defaultCpu = 'qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt,-svm';
export const defaultCpus = { tcg: `${defaultCpu},enforce`, kvm: defaultCpu } as const;

/**
 * A model that somebody names is what the guest gets, or QEMU does not start: else a feature that the host lacks would
 * be left out with a warning that nobody reads. `enforce=off` in the name says otherwise.
 */
function cpuArgument({ accel, cpu }: Pick<MachineSpec, 'accel' | 'cpu'>): string {
  if (cpu === undefined) return defaultCpus[accel];
  return /(^|,)enforce($|[,=])/.test(cpu) ? cpu : `${cpu},enforce`;
}

/** The node name of the carrier. */
export const vmstateNode = 'vmstate';

export function vmFiles(dir: string, nics: number): VmFiles {
  return {
    dir,
    ramPath: join(dir, 'ram'),
    qmpPath: join(dir, 'qmp.sock'),
    consolePath: join(dir, 'console'),
    nicPaths: Array.from({ length: nics }, (_, index) => join(dir, `nic${index}.sock`)),
    screenPath: join(dir, 'screen.sock'),
    vmstatePath: join(dir, 'vmstate.qcow2'),
    deviceStatePath: join(dir, 'device-state'),
    clockPath: join(dir, 'clock'),
  };
}

/** The node name of disk number `index`; also its device's id. */
export function diskNode(index: number): string {
  return `disk${index}`;
}

/** The node under an overlay. */
export function replicaNode(index: number): string {
  return `${diskNode(index)}-replica`;
}

const vgaMemoryMib = 16;

/** Memory of the machine's devices that its guest can write. */
export function furtherBlocks({ display, firmware }: Pick<MachineSpec, 'display' | 'firmware'>): FurtherBlock[] {
  return [
    ...(display === 'vga' ? [{ name: 'vga.vram', bytes: vgaMemoryMib * 2 ** 20 }] : []),
    ...(firmware === undefined ? [] : [{ name: 'system.flash1', bytes: firmware.variablesBytes }]),
  ];
}

/** A screen needs a password, which whoever wants to see it sets first (Vm.screen). */
function displayArguments({ display }: MachineSpec, { screenPath }: VmFiles): string[] {
  if (display === undefined) return ['-display', 'none'];
  // A tablet says where the pointer is: that of the viewer and that of the guest are in one place.
  const devices = [`VGA,vgamem_mb=${vgaMemoryMib}`, 'qemu-xhci,id=usb', 'usb-tablet,bus=usb.0', 'usb-kbd,bus=usb.0'];
  return ['-vnc', `unix:${quoted(screenPath)},password=on`, ...devices.flatMap((one) => ['-device', one])];
}

function firmwareNodes({ code }: Firmware, variablesPath: string): Record<string, unknown>[] {
  const fixed = { 'read-only': true, 'auto-read-only': false };
  return [
    { ...fixed, driver: 'file', 'node-name': 'flash0-file', filename: code, locking: 'off' },
    { ...fixed, driver: 'raw', 'node-name': 'flash0', file: 'flash0-file' },
    { driver: 'file', 'node-name': 'flash1-file', filename: variablesPath },
    { driver: 'raw', 'node-name': 'flash1', file: 'flash1-file' },
  ];
}

function firmwareArguments({ firmware }: MachineSpec, { variablesPath }: VmFiles): string[] {
  if (firmware === undefined) return [];
  const nodes = firmwareNodes(firmware, variablesPath ?? '');
  const secure = firmware.secure ? ['-global', 'driver=cfi.pflash01,property=secure,value=on'] : [];
  return [...nodes.flatMap((node) => ['-blockdev', JSON.stringify(node)]), ...secure];
}

/** The guest finds no sleep state in its firmware's tables, so it never tries one. A microvm has none. */
const noSleep: Record<MachineSpec['machine'], string[]> = {
  pc: ['PIIX4_PM.disable_s3=1', 'PIIX4_PM.disable_s4=1'],
  q35: ['ICH9-LPC.disable_s3=1', 'ICH9-LPC.disable_s4=1'],
  microvm: [],
};

/** A file name inside a comma-separated option of QEMU: a comma is written twice. */
function quoted(text: string): string {
  return text.replaceAll(',', ',,');
}

function bootArguments(spec: MachineSpec): string[] {
  if (spec.kernel === undefined) return [];
  const initrd = spec.initrd === undefined ? [] : ['-initrd', spec.initrd];
  return ['-kernel', spec.kernel, ...initrd, '-append', spec.cmdline];
}

function nicArguments(spec: MachineSpec, nicPaths: readonly string[]): string[] {
  return spec.nics.flatMap((nic, index) => [
    '-netdev',
    `stream,id=nic${index},server=off,addr.type=unix,addr.path=${quoted(nicPaths[index] ?? '')}`,
    '-device',
    `${cardDevice(spec, nic.model ?? 'virtio')},netdev=nic${index},mac=${nic.mac}${cardOptions(spec, nic)}`,
  ]);
}

function cardDevice({ machine }: MachineSpec, model: CardModel): string {
  if (model !== 'virtio') return model;
  return machine === 'microvm' ? 'virtio-net-device' : 'virtio-net-pci';
}

/** Without romfile= a PCI card brings a boot ROM that only costs start-up time. */
function cardOptions({ machine }: MachineSpec, { mtu }: { mtu?: number }): string {
  return `${mtu === undefined ? '' : `,host_mtu=${mtu}`}${machine === 'microvm' ? '' : ',romfile='}`;
}

function diskNodes(files: DiskFiles, index: number): Record<string, unknown>[] {
  const node = diskNode(index);
  const file = { driver: 'file', 'node-name': `${node}-file`, discard: 'unmap' };
  if (files.kind === 'image')
    return [
      { ...file, filename: files.path },
      { driver: files.format, 'node-name': node, file: `${node}-file`, discard: 'unmap' },
    ];
  const replica = replicaNode(index);
  const shared = { 'read-only': true, 'auto-read-only': false, discard: 'unmap' };
  return [
    { ...shared, driver: 'file', 'node-name': `${replica}-file`, filename: files.replicaPath, locking: 'off' },
    { ...shared, driver: 'raw', 'node-name': replica, file: `${replica}-file` },
    { ...file, filename: files.overlayPath, cache: { 'no-flush': true } },
    { driver: 'qcow2', 'node-name': node, file: `${node}-file`, backing: replica, discard: 'unmap' },
  ];
}

/** For blockdev-reopen at a takeover: the overlay's file with flushes, the replica's file writable for the fold. */
export function keptNodes(files: Extract<DiskFiles, { kind: 'overlay' }>, index: number): Record<string, unknown>[] {
  const file = { driver: 'file', discard: 'unmap' };
  const replica = { filename: files.replicaPath, locking: 'off', 'read-only': false, 'auto-read-only': false };
  return [
    { ...file, 'node-name': `${diskNode(index)}-file`, filename: files.overlayPath, cache: { 'no-flush': false } },
    { ...file, 'node-name': `${replicaNode(index)}-file`, ...replica },
  ];
}

/** Places at the machine's own SATA controller: q35 has six buses of one, a pc two of two. */
function sataPlace(machine: MachineSpec['machine'], place: number): string {
  return machine === 'q35' ? `bus=ide.${place}` : `bus=ide.${place >> 1},unit=${place & 1}`;
}

/** The options of a disk's device, apart from its name and drive; `sata` counts the places that are taken. */
function diskDevice(machine: MachineSpec['machine'], place: DiskPlace & { cdrom?: boolean }, sata: number): string {
  const kind = place.cdrom === true ? 'cd' : 'hd';
  if (place.bus === 'scsi') return `scsi-${kind},bus=scsi.0`;
  if (place.bus === 'sata') return `ide-${kind},${sataPlace(machine, sata)}`;
  return machine === 'microvm' ? 'virtio-blk-device' : 'virtio-blk-pci';
}

function mediumNodes({ path, format }: Medium, node: string): Record<string, unknown>[] {
  const fixed = { 'read-only': true, 'auto-read-only': false };
  return [
    { ...fixed, driver: 'file', 'node-name': `${node}-file`, filename: path },
    { ...fixed, driver: format, 'node-name': node, file: `${node}-file` },
  ];
}

/** All disks: first those that are written, then the media. */
function diskArguments(spec: MachineSpec, disks: readonly DiskFiles[]): string[] {
  const { media = [] } = spec;
  const written = disks.map((files, index) => {
    // Without a kernel of ours the machine starts from its first disk.
    const usual: DiskPlace = { bus: 'virtio', ...(spec.kernel === undefined ? { bootIndex: index } : {}) };
    return { node: diskNode(index), nodes: diskNodes(files, index), place: spec.disks?.[index] ?? usual };
  });
  const read = media.map((medium, index) => {
    const node = `medium${index}`;
    return { node, nodes: mediumNodes(medium, node), place: medium };
  });
  const all = [...written, ...read];
  const controller = all.some(({ place }) => place.bus === 'scsi') ? ['-device', 'virtio-scsi-pci,id=scsi'] : [];
  let sata = 0;
  const devices = all.flatMap(({ node, nodes, place }) => {
    const boot = place.bootIndex === undefined ? '' : `,bootindex=${place.bootIndex}`;
    const device = diskDevice(spec.machine, place, place.bus === 'sata' ? sata++ : sata);
    const [name, ...options] = device.split(',');
    const option = [name, `id=${node}`, `drive=${node}`, ...options].join(',');
    return [...nodes.flatMap((one) => ['-blockdev', JSON.stringify(one)]), '-device', `${option}${boot}`];
  });
  return [...controller, ...devices];
}

function machineOption({ machine, accel, firmware }: MachineSpec): string {
  const flash = firmware === undefined ? '' : `,pflash0=flash0,pflash1=flash1${firmware.secure ? ',smm=on' : ''}`;
  return `${machine},accel=${accel},memory-backend=${ramBlockName},suppress-vmdesc=on${flash}`;
}

export function qemuArguments(spec: MachineSpec, files: VmFiles, options: { paused: boolean }): string[] {
  const memory = `id=${ramBlockName},size=${spec.ramBytes},mem-path=${quoted(files.ramPath)},share=on,prealloc=on`;
  return [
    ...['-name', 'colo,debug-threads=on', '-no-user-config', '-nodefaults'],
    ...['-machine', machineOption(spec)],
    ...['-cpu', cpuArgument(spec), '-smp', String(spec.vcpus), '-m', `${spec.ramBytes / 1024}K`],
    ...(spec.rtc === 'vm' ? ['-rtc', 'base=utc,clock=vm'] : []),
    ...['-object', `memory-backend-file,${memory}`],
    '-only-migratable',
    ...['migration.send-configuration=off', ...noSleep[spec.machine]].flatMap((one) => ['-global', one]),
    ...['-chardev', `socket,id=monitor,path=${quoted(files.qmpPath)},server=off`],
    ...['-mon', 'chardev=monitor,mode=control'],
    ...['-chardev', `pipe,id=console,path=${quoted(files.consolePath)}`, '-serial', 'chardev:console'],
    ...[
      '-blockdev',
      `driver=qcow2,node-name=${vmstateNode},file.driver=file,file.filename=${quoted(files.vmstatePath)}`,
    ],
    ...displayArguments(spec, files),
    ...firmwareArguments(spec, files),
    ...bootArguments(spec),
    ...nicArguments(spec, files.nicPaths),
    ...diskArguments(spec, files.disks ?? []),
    ...(options.paused ? ['-S'] : []),
    ...spec.extraArgs,
  ];
}
