// The end of a file, within a bound.

import { closeSync, fstatSync, openSync, readSync } from 'node:fs';

/** Up to so many bytes from its end as text; '' when there is no such file. */
export function tail(path: string, bytesMax: number): string {
  return tailBytes(path, bytesMax).toString('utf8');
}

/** The same of a log or a console, which goes on in FILE when FILE.old is full (base/writer.ts). */
export function tailOfBoth(path: string, bytesMax: number): string {
  const newest = tailBytes(path, bytesMax);
  return Buffer.concat([tailBytes(`${path}.old`, bytesMax - newest.length), newest]).toString('utf8');
}

function tailBytes(path: string, bytesMax: number): Buffer {
  let fd: number;
  try {
    fd = openSync(path, 'r');
  } catch {
    return Buffer.alloc(0);
  }
  try {
    const { size } = fstatSync(fd);
    const bytes = Buffer.alloc(Math.min(size, bytesMax));
    const read = readSync(fd, bytes, 0, bytes.length, size - bytes.length);
    return bytes.subarray(0, read);
  } finally {
    closeSync(fd);
  }
}
