// The bytes that the guest serves, computed on the host, so that a client can tell a right download from a wrong one.
//
// rootfs/content.pl makes the same bytes in the guest: a row of blocks, each a numbered header and one fixed
// incompressible body. A block lost, repeated or moved changes the sum.
//
//   0        64                                 65536
//   +--------+----------------------------------+
//   | header | body: bytes 0..65471 of the block |   "colo block 17" padded with blanks, ended by a newline
//   +--------+----------------------------------+

import { createHash, type Hash } from 'node:crypto';
import { seededRandom } from '../src/base/random.ts';

const blockBytes = 65_536;
const headerBytes = 64;

/** Sizes of what the guest serves when nothing else is said. */
export const bigMebibytesDefault = 64;
export const smallBytes = 405 * 1024;

/** The incompressible block that the initramfs carries. */
export function contentBlock(): Buffer {
  const random = seededRandom(0xc010);
  const block = Buffer.allocUnsafe(blockBytes);
  for (let offset = 0; offset < blockBytes; offset += 4) block.writeUInt32LE(random() * 2 ** 32, offset);
  return block;
}

function hashContent(hash: Hash, byteCount: number): void {
  const body = contentBlock().subarray(0, blockBytes - headerBytes);
  for (let index = 0; index * blockBytes < byteCount; index++) {
    const header = Buffer.from(`${`colo block ${index}`.padEnd(headerBytes - 1)}\n`);
    hash.update(Buffer.concat([header, body]).subarray(0, byteCount - index * blockBytes));
  }
}

function contentSha256(byteCount: number): string {
  const hash = createHash('sha256');
  hashContent(hash, byteCount);
  return hash.digest('hex');
}

/** The sha256 of `/big` in a guest started with `colo.big=mebibytes`. */
export function downloadSha256(mebibytes: number): string {
  return contentSha256(mebibytes * 1024 * 1024);
}

/** The sha256 of `/small`. */
export function smallSha256(): string {
  return contentSha256(smallBytes);
}
