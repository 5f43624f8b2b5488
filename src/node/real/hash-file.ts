// The hash of a disk's file, for `verify`: chunk by chunk, so that beats are answered while a disk is read. O(size).
//
// The size is the disk's, not the file's: of a raw image whose size is no multiple of 512 QEMU makes a disk that is,
// and what the file lacks reads as zeroes. The replica is of the disk's size from the beginning.

import { createHash } from 'node:crypto';
import { type FileHandle, open } from 'node:fs/promises';
import { ramHash } from '../../qemu/hash.ts';

const chunkBytes = 4 * 1024 * 1024;

export async function hashFile(path: string, bytes: number): Promise<string> {
  const file = await open(path, 'r');
  const sum = createHash('sha1');
  try {
    const chunk = Buffer.allocUnsafeSlow(chunkBytes);
    for (let at = 0; at < bytes; at += chunkBytes) {
      const wanted = chunk.subarray(0, Math.min(chunkBytes, bytes - at));
      await fill(file, wanted, at);
      sum.update(ramHash(wanted));
    }
    return `disk:${sum.digest('hex')}`;
  } finally {
    await file.close();
  }
}

async function fill(file: FileHandle, into: Buffer, offset: number): Promise<void> {
  for (let at = 0; at < into.length; ) {
    const { bytesRead } = await file.read(into, at, into.length - at, offset + at);
    if (bytesRead === 0) {
      into.fill(0, at);
      return;
    }
    at += bytesRead;
  }
}
