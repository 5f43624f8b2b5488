// The file of a UEFI machine's variables. QEMU reads it when it starts, and writes what the guest changes through to
// it; after a load it writes all of it, so the file of a survivor is its guest's.

import { closeSync, copyFileSync, ftruncateSync, openSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { ColoError, errorCodes } from '../base/errors.ts';
import { makeFolder } from '../base/make-folder.ts';
import type { Firmware } from './machine.ts';

/** Where they are when nobody says: beside a disk. */
export function variablesBeside(diskPath: string): string {
  return `${diskPath}.vars.fd`;
}

/** Makes the file where it is not there yet. A secondary's (`empty`) always anew: checkpoints bring what is in it. */
export function prepareVariables(firmware: Firmware, path: string, empty: boolean): void {
  makeFolder(dirname(path), 0o700);
  if (empty) makeEmpty(path, firmware.variablesBytes);
  else if (statSync(path, { throwIfNoEntry: false }) === undefined) copyFileSync(firmware.variables, path);
  else refuseOther(path, firmware.variablesBytes);
}

function makeEmpty(path: string, bytes: number): void {
  const file = openSync(path, 'w', 0o600);
  try {
    ftruncateSync(file, bytes);
  } finally {
    closeSync(file);
  }
}

function refuseOther(path: string, bytes: number): void {
  const { size } = statSync(path);
  if (size === bytes) return;
  throw new ColoError(errorCodes.input, `${path} has ${size} bytes, the variables of this firmware have ${bytes}`, {
    hint: 'name the file of this machine under machine.variables, or move it away: then the variables begin anew',
  });
}
