// Who this node is to others: its certificate, its key, and the authority that it trusts. One folder holds all three,
// readable by its owner only, as `colo init` and `colo join` make it.
//
//   ca.pem      the authority of the cluster's nodes
//   people.pem  on nodes: that of the people and programs who ask the service (base/roles.ts); links and etcd know nothing of it
//   node.pem    this node's certificate; its common name is the node's name
//   node.key    its private key

import { existsSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { ColoError, errorCodes } from './errors.ts';

/** PEM texts. */
export interface Identity {
  ca: string;
  certificate: string;
  key: string;
  /** The authority of those who ask, and are no nodes; none where there is no such file. */
  people?: string;
}

export const identityFiles = { ca: 'ca.pem', people: 'people.pem', certificate: 'node.pem', key: 'node.key' } as const;

/** Reads the identity of a node; refuses a key that others can read. */
export function readIdentity(folder: string): Identity {
  const keyPath = join(folder, identityFiles.key);
  try {
    if ((statSync(keyPath).mode & 0o077) !== 0)
      throw new ColoError(errorCodes.input, `the private key ${keyPath} can be read by others`, {
        hint: `chmod 600 ${keyPath}, and make a new one if it may have been read`,
      });
    const read = (name: string) => readFileSync(join(folder, name), 'utf8');
    const people = existsSync(join(folder, identityFiles.people)) ? { people: read(identityFiles.people) } : {};
    const own = { certificate: read(identityFiles.certificate), key: read(identityFiles.key) };
    return { ca: read(identityFiles.ca), ...own, ...people };
  } catch (cause) {
    if (cause instanceof ColoError) throw cause;
    throw new ColoError(errorCodes.input, `${folder} does not hold this node's certificates`, {
      cause,
      hint: 'make them with `colo init` on one node and `colo join` for each other one',
    });
  }
}
