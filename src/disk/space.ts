// Room in a sparse file: taking it before it is needed, and giving it back. fallocate(2), which Node does not offer.

import koffi from 'koffi';
import { ColoError, errorCodes } from '../base/errors.ts';
import { libc } from '../base/libc.ts';

const fallocate = libc.func('int fallocate(int fd, int mode, int64_t offset, int64_t length)');

const keepSize = 1;
const punchHole = 2;
const ENOSPC = 28;
const EDQUOT = 122;

/** Makes sure that writing there will not fail for want of space. Where the file system cannot say, it is let be. */
export function reserve(descriptor: number, offset: number, length: number): void {
  if (fallocate(descriptor, keepSize, offset, length) === 0) return;
  const errno = koffi.errno();
  if (errno !== ENOSPC && errno !== EDQUOT) return;
  throw new ColoError(errorCodes.host, 'the disk that holds the replica is full', {
    hint: 'free space on the secondary, or give the replica another folder; the VM goes on unprotected meanwhile',
  });
}

/** Makes a hole that reads as zeroes; false when the file system has no holes. */
export function punch(descriptor: number, offset: number, length: number): boolean {
  return fallocate(descriptor, keepSize | punchHole, offset, length) === 0;
}
