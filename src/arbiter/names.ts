// Names that an arbiter accepts: they become parts of file names and keys, so nothing that could leave its folder.

import { ColoError, errorCodes } from '../base/errors.ts';
import type { Roles } from './arbiter.ts';

const namePattern = /^[a-zA-Z0-9][a-zA-Z0-9_-]{0,62}$/;

export function isName(text: unknown): text is string {
  return typeof text === 'string' && namePattern.test(text);
}

/** Throws for a name that is none. VM names come from an operator's spec, so this is bad input, not a bug. */
export function checkNames(vm: string, next?: Roles): void {
  for (const name of [vm, ...(next === undefined ? [] : [next.owner, ...(next.peer === null ? [] : [next.peer])])]) {
    if (isName(name)) continue;
    throw new ColoError(errorCodes.input, `${JSON.stringify(name)} cannot name a VM or a node`, {
      hint: 'Use up to 63 letters, digits, dashes and underscores, beginning with a letter or a digit.',
    });
  }
}
