// Room in a sparse file: taking it before it is needed, and giving it back. fallocate(2), which Node does not offer;
// on another thread, since a disk that hangs would hold up the event loop, and with it beats and frames.

import koffi from 'koffi';
import { ColoError, errorCodes } from '../base/errors.ts';
import { libc } from '../base/libc.ts';

const fallocate = libc.func('int fallocate(int fd, int mode, int64_t offset, int64_t length)');

const keepSize = 1;
const punchHole = 2;
const ENOSPC = 28;
const EDQUOT = 122;

/** Resolves with 0, or with what is wrong (errno). */
function allocate(descriptor: number, mode: number, { offset, length }: Range): Promise<number> {
  return new Promise((resolve, reject) => {
    fallocate.async(descriptor, mode, offset, length, (error: Error | null, result: number) => {
      // It is of this call here, and of whatever comes next afterwards.
      if (error === null) resolve(result === 0 ? 0 : koffi.errno());
      else reject(error);
    });
  });
}

interface Range {
  offset: number;
  length: number;
}

/** Makes sure that writing there will not fail for want of space. Where the file system cannot say, it is let be. */
export async function reserve(descriptor: number, range: Range): Promise<void> {
  const errno = await allocate(descriptor, keepSize, range);
  if (errno === 0) return;
  if (errno !== ENOSPC && errno !== EDQUOT) return;
  throw new ColoError(errorCodes.host, 'the disk that holds the replica is full', {
    hint: 'free space on the secondary, or give the replica another folder; the VM goes on unprotected meanwhile',
  });
}

/** Makes a hole that reads as zeroes; false when the file system has no holes. */
export async function punch(descriptor: number, range: Range): Promise<boolean> {
  return (await allocate(descriptor, keepSize | punchHole, range)) === 0;
}
