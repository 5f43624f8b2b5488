// The firmware that a spec asks for, from Debian's package ovmf. Its code is not copied: both nodes read it where the
// package puts it, and its hash is part of what two nodes must have alike (node/pairing/machine-hash.ts), since a guest
// that reboots on a survivor runs the survivor's.
//
//    uefi          OVMF_CODE_4M.fd            OVMF_VARS_4M.fd
//    uefi-secure   OVMF_CODE_4M.secboot.fd    OVMF_VARS_4M.ms.fd, with Microsoft's keys, which sign every
//                                             distribution's shim

import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { ColoError, errorCodes } from '../base/errors.ts';
import type { Spec } from '../config/spec.ts';
import { ensurePackages } from '../host/packages.ts';
import type { Firmware } from '../qemu/machine.ts';

const folder = '/usr/share/OVMF';
const filesOf = {
  uefi: { code: 'OVMF_CODE_4M.fd', variables: 'OVMF_VARS_4M.fd' },
  'uefi-secure': { code: 'OVMF_CODE_4M.secboot.fd', variables: 'OVMF_VARS_4M.ms.fd' },
} as const;

/** Installs what a spec's firmware needs. */
export async function ensureFirmware(
  { firmware }: Pick<Spec['machine'], 'firmware'>,
  onProgress?: (line: string) => void,
): Promise<void> {
  if (firmware === 'bios') return;
  await ensurePackages(['ovmf'], {
    why: 'start a machine with UEFI',
    ...(onProgress === undefined ? {} : { onProgress }),
  });
}

/** undefined: the machine's own BIOS. */
export function firmwareOf({ firmware }: Pick<Spec['machine'], 'firmware'>): Firmware | undefined {
  if (firmware === 'bios') return undefined;
  const { code, variables } = filesOf[firmware];
  const [codeBytes, variablesBytes] = [read(code), read(variables)];
  return {
    code: join(folder, code),
    variables: join(folder, variables),
    secure: firmware === 'uefi-secure',
    variablesBytes: variablesBytes.length,
    hash: createHash('sha256').update(codeBytes).update(variablesBytes).digest('hex').slice(0, 32),
  };
}

function read(name: string): Buffer {
  const path = join(folder, name);
  try {
    return readFileSync(path);
  } catch (cause) {
    throw new ColoError(errorCodes.host, `the firmware ${path} cannot be read`, {
      cause,
      hint: 'install the package ovmf (2022.11 or later)',
    });
  }
}
