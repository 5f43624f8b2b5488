// Who this node is to others: its certificate, its key, and the authority that it trusts. One folder holds all three,
// readable by its owner only, as `colo init` and `colo join` make it.
//
//   ca.pem      the cluster's authority
//   node.pem    this node's certificate; its common name is the node's name
//   node.key    its private key

import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { ColoError, errorCodes } from './errors.ts';

/** PEM texts. */
export interface Identity {
  ca: string;
  certificate: string;
  key: string;
}

export const identityFiles = { ca: 'ca.pem', certificate: 'node.pem', key: 'node.key' } as const;

/** Reads the identity of a node; refuses a key that others can read. */
export function readIdentity(folder: string): Identity {
  const keyPath = join(folder, identityFiles.key);
  try {
    if ((statSync(keyPath).mode & 0o077) !== 0)
      throw new ColoError(errorCodes.input, `the private key ${keyPath} can be read by others`, {
        hint: `chmod 600 ${keyPath}, and make a new one if it may have been read`,
      });
    const read = (name: string) => readFileSync(join(folder, name), 'utf8');
    return { ca: read(identityFiles.ca), certificate: read(identityFiles.certificate), key: read(identityFiles.key) };
  } catch (cause) {
    if (cause instanceof ColoError) throw cause;
    throw new ColoError(errorCodes.input, `${folder} does not hold this node's certificates`, {
      cause,
      hint: 'make them with `colo init` on one node and `colo join` for each other one',
    });
  }
}
