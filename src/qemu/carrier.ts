// The carrier: a small qcow2 through which QEMU's `snapshot-load` takes device state, again and again in one process.
//
// snapshot-load wants the state in an internal snapshot of a qcow2 node. Nothing says that QEMU must have put it there:
//
//   once, on the primary:  snapshot-save into the carrier makes the snapshot's tables; the state itself begins at the
//                          cluster whose first word is "QEVM". A copy of the file is the template for the secondary.
//   every checkpoint:      the node writes the bytes of xen-save-devices-state over that cluster, then snapshot-load.
//                          The stream ends with its own mark, so what follows it is never read.
//
//   file:  | header | refcounts ... | L1, L2 tables | QEVM state, one cluster of 2 MiB | snapshot table |
//
// QEMU caches the tables but not this data, and both sides go through the page cache of the same tmpfs file.
// One cluster, because consecutive clusters need not be consecutive in the file: a larger state is refused.
// The template travels packed (deflate): it is mostly holes, 16 MiB become some 20 KiB.

import { execFile } from 'node:child_process';
import { closeSync, openSync, readFileSync, writeFileSync, writeSync } from 'node:fs';
import { promisify } from 'node:util';
import { deflateRaw, inflateRaw } from 'node:zlib';
import { ColoError, errorCodes } from '../base/errors.ts';
import { isDeviceState } from './device-state.ts';
import { carrierBytesMax, deviceStateBytesMax, imageToolTimeoutMs } from './limits.ts';

/** The name of the snapshot, in the carrier and in every overlay of a disk. */
export const snapshotTag = 'colo';

const clusterBytes = 2 * 1024 * 1024;
/** The guest never sees this disk; qcow2 keeps snapshot state behind its end. */
const diskBytes = 1024 * 1024;
const stateMagic = 0x5145_564d;
const stateHeaderBytes = 8;

/** Makes an empty carrier for a primary. */
export async function createCarrier(path: string, imageTool = 'qemu-img'): Promise<void> {
  const options = ['create', '-q', '-f', 'qcow2', '-o', `cluster_size=${clusterBytes}`, path, String(diskBytes)];
  try {
    await promisify(execFile)(imageTool, options, { timeout: imageToolTimeoutMs });
  } catch (cause) {
    throw new ColoError(errorCodes.host, `The file ${path} could not be made by ${imageTool}.`, {
      cause,
      hint: 'Install the package qemu-utils.',
    });
  }
}

/** Offset of the saved state; throws when there is not exactly one. */
function stateOffset(image: Buffer): number {
  const offsets: number[] = [];
  for (let at = clusterBytes; at + stateHeaderBytes <= image.length; at += clusterBytes) {
    if (image.readUInt32BE(at) === stateMagic) offsets.push(at);
  }
  if (offsets[0] !== undefined && offsets.length === 1) return offsets[0];
  throw new ColoError(errorCodes.checkpoint, `The carrier holds ${offsets.length} saved states instead of one.`);
}

/** The template for a secondary, from a carrier into which a snapshot was saved. */
export async function packTemplate(path: string): Promise<Uint8Array> {
  const image = readFileSync(path);
  const start = stateOffset(image);
  // The state itself is replaced before every load: only its place matters, and zeros pack to nothing.
  image.fill(0, start + stateHeaderBytes, Math.min(start + clusterBytes, image.length));
  return await promisify(deflateRaw)(image, { level: 1 });
}

/** Writes the peer's template to `path`. */
export async function unpackTemplate(template: Uint8Array, path: string): Promise<void> {
  let image: Buffer;
  try {
    image = await promisify(inflateRaw)(template, { maxOutputLength: carrierBytesMax });
  } catch (cause) {
    throw new ColoError(errorCodes.checkpoint, "The peer's template of the snapshot carrier is not readable.", {
      cause,
    });
  }
  stateOffset(image);
  writeFileSync(path, image, { mode: 0o600 });
}

/** A carrier that holds a snapshot, open for replacing the state in it. */
export class Carrier {
  readonly #fd: number;
  readonly #offset: number;

  constructor(path: string) {
    this.#offset = stateOffset(readFileSync(path));
    this.#fd = openSync(path, 'r+');
  }

  write(deviceState: Uint8Array): void {
    assertLoadable(deviceState);
    const written = writeSync(this.#fd, deviceState, 0, deviceState.length, this.#offset);
    if (written === deviceState.length) return;
    throw new ColoError(errorCodes.checkpoint, `Only ${written} of ${deviceState.length} bytes of device state fit.`);
  }

  close(): void {
    closeSync(this.#fd);
  }
}

/** Throws unless this is one complete stream of device state that fits into the carrier's cluster. */
export function assertLoadable(deviceState: Uint8Array): void {
  if (deviceState.length > deviceStateBytesMax || deviceState.length > clusterBytes) {
    const text = `The device state of ${deviceState.length} bytes is larger than ${deviceStateBytesMax}.`;
    throw new ColoError(errorCodes.checkpoint, text);
  }
  if (isDeviceState(deviceState)) return;
  throw new ColoError(errorCodes.checkpoint, 'The device state is not one complete stream of QEMU.');
}
