// Looks at a user's disk image before anything is started with it, and says in one line what is wrong with it.

import { constants } from 'node:fs';
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
export async function checkImage(path: string, format: 'raw' | 'qcow2'): Promise<void> {
  await refuseUnusable(path);
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

async function refuseUnusable(path: string): Promise<void> {
  const found = await stat(path).catch((cause: unknown) => {
    throw refused(path, 'is not there', 'correct the path under disks:', cause);
  });
  if (!found.isFile()) throw refused(path, 'is no file', 'name an image file; block devices are not supported');
  await access(path, constants.R_OK | constants.W_OK).catch((cause: unknown) => {
    throw refused(path, 'cannot be read and written by this user', 'change its owner or mode', cause);
  });
  if (found.size === 0) throw refused(path, 'is empty', 'make one with `qemu-img create -f qcow2 IMAGE 10G`');
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
