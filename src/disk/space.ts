// Room in a sparse file: taking it before it is needed, and giving it back, which Node does not offer. On another
// thread: a disk may hang, and the event loop carries the beats. posix_fallocate(3) takes the room, since it returns
// its error, which errno does not bring from another thread; where a file system knows no such thing it writes zeroes,
// and finds out as well.

import { ColoError, errorCodes, errorText } from '../base/errors.ts';
import { libc } from '../base/libc.ts';

const fallocate = libc.func('int fallocate(int fd, int mode, int64_t offset, int64_t length)');
const takeRoom = libc.func('int posix_fallocate(int fd, int64_t offset, int64_t length)');

const keepSize = 1;
const punchHole = 2;
const ENOSPC = 28;
const EDQUOT = 122;

const hint = 'free space on the secondary, or give the replica another folder; the VM goes on unprotected meanwhile';

/** Makes sure that writing there will not fail for want of space. Where the file system cannot say, it is let be. */
export async function reserve(descriptor: number, offset: number, length: number): Promise<void> {
  const errno = await onAnotherThread(takeRoom, descriptor, offset, length);
  if (errno !== ENOSPC && errno !== EDQUOT) return;
  throw new ColoError(errorCodes.host, 'the disk that holds the replica is full', { hint });
}

/** Makes a hole that reads as zeroes; false when the file system has no holes. */
export async function punch(descriptor: number, offset: number, length: number): Promise<boolean> {
  return (await onAnotherThread(fallocate, descriptor, keepSize | punchHole, offset, length)) === 0;
}

function onAnotherThread(call: typeof fallocate, ...parameters: number[]): Promise<number> {
  return new Promise((resolve, reject) => {
    call.async(...parameters, (error: Error | null, result: number) => {
      if (error === null) resolve(result);
      else reject(error);
    });
  });
}

/** What a replica's session ends with when a file in `folder` cannot be written. */
export function writeFailure(folder: string, cause: unknown): ColoError {
  const full = cause instanceof Error && 'code' in cause && (cause.code === 'ENOSPC' || cause.code === 'EDQUOT');
  const what = full ? `the disk that holds ${folder} is full` : `${folder} cannot be written: ${errorText(cause)}`;
  return new ColoError(errorCodes.host, what, {
    cause,
    hint,
  });
}
