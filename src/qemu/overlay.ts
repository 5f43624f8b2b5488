// The overlay of a secondary's disk: a qcow2 over the replica with one internal snapshot, of its empty beginning, that
// snapshot-load goes back to. Each file is QEMU's; this makes it.

import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { ColoError, errorCodes } from '../base/errors.ts';
import { snapshotTag } from './carrier.ts';
import { imageToolTimeoutMs } from './limits.ts';

export async function createOverlay(overlayPath: string, replicaPath: string, imageTool = 'qemu-img'): Promise<void> {
  const create = ['create', '-q', '-f', 'qcow2', '-b', replicaPath, '-F', 'raw', overlayPath];
  try {
    await promisify(execFile)(imageTool, create, { timeout: imageToolTimeoutMs });
    await promisify(execFile)(imageTool, ['snapshot', '-c', snapshotTag, overlayPath], { timeout: imageToolTimeoutMs });
  } catch (cause) {
    throw new ColoError(errorCodes.host, `The overlay ${overlayPath} could not be made by ${imageTool}.`, {
      cause,
      hint: 'Install the package qemu-utils, and see whether the folder can be written and has room.',
    });
  }
}
