// What a folder with a replica holds before a session begins in it, or after whoever wrote it has ended in any way.
//
//    header    what recover() makes of it
//    none      none
//    syncing   syncing: a copy was under way
//    applying  the segments of the interrupted epoch n are written again: epoch n
//    epoch n   epoch n
//    owner     owner: the VM ran on from here, and only a later term of it may overwrite that (refuseOwner)
//
// An epoch that was not flushed is unsure when the host ended as well. Whether a session may build upon what is here is
// said by keptPosition.
//
// Nobody else uses the folder meanwhile.

import { ColoError, errorCodes } from '../base/errors.ts';
import { headerName, isHeaderDamaged, type ReplicaHeader, readHeader, writeHeader } from './header.ts';
import { type DiskRecord, diskError, recordKinds, type Session } from './message.ts';
import { overlayName, overlayPath, replicaName, replicaPath, segmentName } from './replica-files.ts';
import { segmentRecordAt } from './segment.ts';
import { type Storage, storageOf } from './storage.ts';

/** An image that the spec names: what the newest disks are to be brought back into. */
export interface Image {
  path: string;
  format: 'raw' | 'qcow2';
}

/**
 * Never overwrites the newest truth of a VM, or what may be it: only a later term of the same life of the VM (`by`)
 * may. Without `by` nobody may. `images`: those of the spec, where they are known, so that the hint can name them.
 */
export function refuseOwner(
  folder: string | Storage,
  by?: { vm: string; term: number },
  images: readonly Image[] = [],
): void {
  const storage = storageOf(folder);
  const path = storage.folder;
  if (isHeaderDamaged(storage))
    throw new ColoError(errorCodes.input, `${path}/${headerName} is damaged, or of another version of colo`, {
      hint:
        'these may be the newest disks of the VM: look at them (qemu-img info), bring back what you need, ' +
        `then remove ${path}`,
    });
  const header = readHeader(storage);
  if (header?.state !== 'owner') return;
  if (by !== undefined && by.vm === header.vm && by.term > header.term) return;
  const commands = bringBack(storage, header, images).join(' && ');
  throw new ColoError(errorCodes.input, `${path} holds the newest disks of ${header.vm}, which ran on from there`, {
    hint: `bring back every one of them first: ${commands}\nthen remove the folder: rm -r ${quoted(path)}`,
  });
}

/**
 * What writes the newest disks over the images: for each disk its overlay, or the replica that an overlay became part
 * of.
 */
function bringBack(storage: Storage, { sizes }: ReplicaHeader, images: readonly Image[]): string[] {
  const disks = sizes.map((_, disk) => {
    const { path, format } = images[disk] ?? { path: `IMAGE${disk}`, format: 'FORMAT' };
    const isOverlay = storage.has(overlayName(disk));
    const newest = isOverlay ? overlayPath(storage.folder, disk) : replicaPath(storage.folder, disk);
    return `qemu-img convert -f ${isOverlay ? 'qcow2' : 'raw'} -O ${format} ${quoted(newest)} ${quoted(path)}`;
  });
  // What a machine with UEFI keeps beside its first disk (node/real/variables.ts).
  const variables = `${replicaName(0)}.vars.fd`;
  if (!storage.has(variables)) return disks;
  return [
    ...disks,
    `cp ${quoted(`${storage.folder}/${variables}`)} ${quoted(`${images[0]?.path ?? 'IMAGE0'}.vars.fd`)}`,
  ];
}

/** For a shell. */
function quoted(path: string): string {
  return /^[\w./-]+$/.test(path) ? path : `'${path.replaceAll("'", `'\\''`)}'`;
}

/** Removes what a session of before left; with `keepReplica` all but the disks themselves. */
export async function removeFiles(storage: Storage, keepReplica: boolean): Promise<void> {
  const ours = keepReplica
    ? /^(replica\.json\.new|disk\d+\.overlay|journal\.\d+)$/
    : /^(replica\.json\.new|disk\d+\.(raw|overlay)|journal\.\d+)$/;
  for (const name of storage.list()) if (ours.test(name)) await storage.remove(name);
}

/**
 * The position of the replica in the folder, if the primary of `session` knows what changed since. Everything in doubt
 * is undefined: then all is copied.
 */
export async function keptPosition(
  storage: Storage,
  { vm, session }: { vm: string; session: Session },
): Promise<number | undefined> {
  const { since, from = 0, lineage = '' } = session;
  const header = readHeader(storage);
  if (header === undefined || since === undefined || header.state === 'owner') return undefined;
  if (lineage === '' || header.lineage !== lineage || header.vm !== vm) return undefined;
  if (header.position < since || header.position > from) return undefined;
  if (!header.durable && header.boot !== storage.boot) return undefined;
  if (header.sizes.length !== session.sizes.length) return undefined;
  for (const [index, size] of session.sizes.entries())
    if (header.sizes[index] !== size || !storage.has(replicaName(index))) return undefined;
  try {
    await recover(storage);
  } catch {
    return undefined;
  }
  return header.position;
}

/** What a replica is after its node ended in any way; `unsure` when the host ended as well and nothing was flushed. */
export type ReplicaState = { kind: 'none' | 'syncing' | 'unsure' } | { kind: 'epoch' | 'owner'; epoch: number };

/** Finishes an apply that was interrupted, and says what the replica is. Nobody else uses the folder meanwhile. */
export async function recover(folder: string | Storage, boot?: string): Promise<ReplicaState> {
  const storage = storageOf(folder);
  const header = readHeader(storage);
  if (header === undefined) return { kind: 'none' };
  if (header.state === 'syncing') return { kind: 'syncing' };
  if (header.state === 'owner') return { kind: 'owner', epoch: header.epoch };
  if (!header.durable && header.boot !== (boot ?? storage.boot)) return { kind: 'unsure' };
  if (header.state === 'applying') await replay(storage, header);
  return { kind: 'epoch', epoch: header.epoch };
}

async function replay(storage: Storage, header: ReplicaHeader): Promise<void> {
  for (const serial of segmentSerials(storage).filter((each) => each <= header.through)) {
    const bytes = await storage.read(segmentName(serial));
    for (let at = 0; at < bytes.length; ) {
      const found = segmentRecordAt(bytes, at, header.sizes);
      if (found === undefined)
        throw diskError(`the journal in ${storage.folder} is damaged at byte ${at} of segment ${serial}`);
      await writeRecord(storage, found.record);
      at = found.next;
    }
  }
  await writeHeader(storage, { ...header, state: 'epoch', through: 0 }, true);
  for (const serial of segmentSerials(storage).filter((each) => each <= header.through))
    await storage.remove(segmentName(serial));
}

async function writeRecord(storage: Storage, record: DiskRecord): Promise<void> {
  const file = await storage.open(replicaName(record.disk), 'old');
  try {
    if (record.kind === recordKinds.zeroes) await file.zero(record.offset, record.length);
    else await file.write([record.data], record.offset);
    await file.flush();
  } finally {
    await file.close();
  }
}

function segmentSerials(storage: Storage): number[] {
  const serials = storage.list().map((name) => Number(/^journal\.(\d+)$/.exec(name)?.[1] ?? 0));
  return serials.filter((serial) => serial > 0).sort((left, right) => left - right);
}
