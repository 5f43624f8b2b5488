// Which files of a host a spec may name. One that came over the network names files below the folders of the node's
// configuration only: else a token would be the key of a node, since a disk can be any file and a guest reads its
// disks.
//
// It is looked at twice. When the VM is to be run the paths are judged as text, on any node: the files may be
// elsewhere. And on each node, whenever it starts a child, as the file system has them: links and `..` are followed as
// the kernel does. A qcow2 image names files of its own; what a guest wrote into a raw disk may look like one. So one
// that names any is refused.

import { closeSync, existsSync, lstatSync, openSync, readSync, realpathSync } from 'node:fs';
import { basename, dirname, join, resolve, sep } from 'node:path';
import { Refusal } from '../api/refusal.ts';
import { ColoError, errorCodes } from '../base/errors.ts';
import type { Spec } from '../config/spec.ts';
import { variablesBeside } from '../qemu/variables.ts';

interface NamedFile {
  key: string;
  path: string;
}

/** Every file and folder of a host that a spec names, with its key. */
export function namedFiles(spec: Spec): NamedFile[] {
  const { boot, disks, replicaFolder, network } = spec;
  const bootFiles = 'kernel' in boot ? [named('boot.kernel', boot.kernel), named('boot.initrd', boot.initrd)] : [];
  return [
    ...bootFiles,
    ...disks.map(({ path }, index) => named(`disks.${index}.path`, path)),
    named('machine.variables', variablesOf(spec)),
    named('replicaFolder', replicaFolder),
    named('network.pcap', network.pcap),
  ].flat();
}

/** What QEMU makes where there is none, and the guest writes to. */
function variablesOf({ machine, disks }: Spec): string | undefined {
  if (machine.firmware === 'bios') return undefined;
  const [first] = disks;
  return machine.variables ?? (first === undefined ? undefined : variablesBeside(first.path));
}

function named(key: string, path: string | undefined): NamedFile[] {
  return path === undefined ? [] : [{ key, path }];
}

/** Refuses a spec whose paths lie elsewhere as they are written. */
export function refuseOutside(spec: Spec, folders: readonly string[]): void {
  for (const file of namedFiles(spec)) if (!isBelow(resolve('/', file.path), folders)) throw outside(file, folders);
}

/** Refuses a spec whose files lie elsewhere on this host, or name others. */
export function refuseOutsideHere(spec: Spec, folders: readonly string[]): void {
  const real = folders.flatMap((folder) => (existsSync(folder) ? [realpathSync.native(folder)] : []));
  for (const file of namedFiles(spec)) if (!isBelow(realPath(file.path), real)) throw outside(file, folders);
  for (const { path, format } of spec.disks) if (format === 'qcow2' && existsSync(path)) refuseOtherFiles(path);
}

function isBelow(path: string, folders: readonly string[]): boolean {
  return folders.some((folder) => path.startsWith(folder.endsWith(sep) ? folder : `${folder}${sep}`));
}

/** Where a path leads; of one that is not there yet, where it would be made. */
function realPath(path: string): string {
  const missing: string[] = [];
  for (let at = path; ; at = dirname(at)) {
    const real = realOf(at);
    if (real !== undefined) return join(real, ...missing);
    // Where a link to nothing leads, and a step up from what is not there, can be anywhere a moment later.
    const isLink = lstatSync(at, { throwIfNoEntry: false }) !== undefined;
    if (isLink || basename(at) === '..' || dirname(at) === at) return '';
    missing.unshift(basename(at));
  }
}

function realOf(path: string): string | undefined {
  try {
    return realpathSync.native(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw new ColoError(errorCodes.input, `${path} cannot be looked at`, { cause: error });
  }
}

const qcow2Magic = 0x514649fb;
const externalData = 4n;

/** A backing file, or a file that holds the data: QEMU would open it, wherever it is. */
function refuseOtherFiles(path: string): void {
  const head = Buffer.alloc(104);
  const file = openSync(path, 'r');
  try {
    readSync(file, head, 0, head.length, 0);
  } finally {
    closeSync(file);
  }
  if (head.readUInt32BE(0) !== qcow2Magic) return;
  const hasBacking = head.readBigUInt64BE(8) !== 0n;
  const isVersion3 = head.readUInt32BE(4) >= 3;
  const hasData = isVersion3 && (head.readBigUInt64BE(72) & externalData) !== 0n;
  if (!hasBacking && !hasData) return;
  throw new ColoError(
    errorCodes.input,
    `the disk image ${path} names another file, which a spec of the network may not`,
    {
      hint: 'make one image of both (qemu-img convert), or run the VM on the socket of its node',
    },
  );
}

function outside({ key, path }: NamedFile, folders: readonly string[]): Refusal {
  const where = folders.length === 0 ? 'no folder is' : `${folders.join(', ')} ${folders.length === 1 ? 'is' : 'are'}`;
  return new Refusal(403, errorCodes.input, `${key}: ${path} is none that a spec of the network may name`, {
    hint: `${where} allowed (files in colod.yaml); on the socket of a node any file may be named`,
  });
}
