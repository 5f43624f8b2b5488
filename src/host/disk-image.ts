// Looks at a user's disk image before anything is started with it, and says in one line what is wrong with it.

import { createHash } from 'node:crypto';
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import { access, open, stat } from 'node:fs/promises';
import { ColoError, errorCodes } from '../base/errors.ts';
import { tryCommand } from './command.ts';

/** First bytes of formats that people take for raw; a guest that sees one as its disk would overwrite the header. */
const magics: [string, Buffer][] = [
  ['qcow2', Buffer.from([0x51, 0x46, 0x49, 0xfb])],
  ['vmdk', Buffer.from('KDMV')],
  ['vhdx', Buffer.from('vhdxfile')],
  ['luks', Buffer.from([0x4c, 0x55, 0x4b, 0x53, 0xba, 0xbe])],
];

/** Throws ColoError(input) unless the image can be a guest's disk now. */
export async function checkImage(path: string, format: 'raw' | 'qcow2', isWritten = true): Promise<void> {
  await refuseUnusable(path, isWritten);
  if (format === 'raw') await refuseOtherFormat(path);
  const result = await tryCommand('qemu-img', ['info', '--output=json', '-f', format, path]);
  if (result.code === 0) return;
  const said = result.failure ?? result.stderr.trim().split('\n').at(-1) ?? '';
  if (/lock/.test(result.stderr))
    throw refused(path, 'is in use by another program', 'end the VM that uses it, or give this one a copy');
  if (/not in .* format|invalid|unsupported/i.test(said))
    throw refused(
      path,
      `is no ${format} image`,
      `\`qemu-img info ${path}\` says what it is; correct "format" in the spec`,
    );
  throw refused(path, `cannot be used: ${said}`, 'see `qemu-img check`');
}

async function refuseUnusable(path: string, isWritten: boolean): Promise<void> {
  const found = await stat(path).catch((cause: unknown) => {
    throw refused(path, 'is not there', 'correct the path under disks:', cause);
  });
  if (!found.isFile()) throw refused(path, 'is no file', 'name an image file; block devices are not supported');
  const needed = isWritten ? constants.R_OK | constants.W_OK : constants.R_OK;
  await access(path, needed).catch((cause: unknown) => {
    throw refused(
      path,
      `cannot be read${isWritten ? ' and written' : ''} by this user`,
      'change its owner or mode',
      cause,
    );
  });
  if (found.size === 0) throw refused(path, 'is empty', 'make one with `qemu-img create -f qcow2 IMAGE 10G`');
}

function openMedium(path: string): number {
  try {
    return openSync(path, 'r');
  } catch (cause) {
    throw refused(path, 'is not there', 'a disk that is only read has to be at the same path on every node', cause);
  }
}

/** Enough of a file to tell one image from another: its size, its beginning and its end. */
export function mediumHash(path: string): string {
  const edgeBytes = 1024 * 1024;
  const hash = createHash('sha256');
  const file = openMedium(path);
  try {
    const { size } = fstatSync(file);
    hash.update(`${size} `);
    const edge = Buffer.alloc(Math.min(size, edgeBytes));
    for (const at of [0, size - edge.length]) hash.update(edge.subarray(0, readSync(file, edge, 0, edge.length, at)));
  } catch (cause) {
    throw refused(path, 'cannot be read', 'a disk that is only read has to be at the same path on every node', cause);
  } finally {
    closeSync(file);
  }
  return hash.digest('hex').slice(0, 32);
}

async function refuseOtherFormat(path: string): Promise<void> {
  const file = await open(path, 'r');
  try {
    const head = Buffer.alloc(16);
    await file.read(head, 0, head.length, 0);
    const match = magics.find(([, magic]) => head.subarray(0, magic.length).equals(magic));
    if (match === undefined) return;
    throw refused(
      path,
      `is a ${match[0]} image, not a raw one`,
      `write "format: ${match[0]}", or convert it with qemu-img`,
    );
  } finally {
    await file.close();
  }
}

function refused(path: string, what: string, hint: string, cause?: unknown): ColoError {
  return new ColoError(errorCodes.input, `the disk image ${path} ${what}`, {
    hint,
    ...(cause === undefined ? {} : { cause }),
  });
}
