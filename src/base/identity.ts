// Who this node is to others: its certificate, its key, and the authority that it trusts. One folder holds all three,
// readable by its owner only, as `colo init` and `colo join` make it.
//
//   ca.pem      the authority of the cluster's nodes
//   people.pem  on nodes: that of the people and programs who ask the service (base/roles.ts); links and etcd know
//               nothing of it
//   node.pem    this node's certificate; its common name is the node's name
//   node.key    its private key
//   revoked.pem where there is one: the certificates of both authorities that count no more (`colo certificate revoke`)

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
  /** Lists of revoked certificates; none where nothing was ever revoked. */
  crl?: string;
}

export const identityFiles = {
  ...{ ca: 'ca.pem', people: 'people.pem', certificate: 'node.pem', key: 'node.key', revoked: 'revoked.pem' },
} as const;

/** Reads the identity of a node; refuses a key that others can read. */
export function readIdentity(folder: string): Identity {
  const keyPath = join(folder, identityFiles.key);
  try {
    if ((statSync(keyPath).mode & 0o077) !== 0)
      throw new ColoError(errorCodes.input, `the private key ${keyPath} can be read by others`, {
        hint: `chmod 600 ${keyPath}, and make a new one if it may have been read`,
      });
    const read = (name: string) => readFileSync(join(folder, name), 'utf8');
    const isThere = (name: string) => existsSync(join(folder, name));
    const people = isThere(identityFiles.people) ? { people: read(identityFiles.people) } : {};
    const crl = isThere(identityFiles.revoked) ? { crl: read(identityFiles.revoked) } : {};
    const own = { certificate: read(identityFiles.certificate), key: read(identityFiles.key) };
    return { ca: read(identityFiles.ca), ...own, ...people, ...crl };
  } catch (cause) {
    if (cause instanceof ColoError) throw cause;
    throw new ColoError(errorCodes.input, `${folder} does not hold this node's certificates`, {
      cause,
      hint: 'make them with `colo init` on one node and `colo join` for each other one',
    });
  }
}

export type IdentitySource = Identity | (() => Identity);

/**
 * The identity of a folder as its files are now, for one who listens for long: the same object while they stay the
 * same. What cannot be read (half of the files are replaced) is as it was before.
 */
export function identitySource(folder: string): () => Identity {
  let known = { identity: readIdentity(folder), mark: markOf(folder) };
  return () => {
    const mark = markOf(folder);
    if (mark === known.mark) return known.identity;
    try {
      known = { identity: readIdentity(folder), mark };
    } catch {
      // Asked again with the next question.
    }
    return known.identity;
  };
}

function markOf(folder: string): string {
  return Object.values(identityFiles)
    .map((name) => {
      const found = statSync(join(folder, name), { throwIfNoEntry: false });
      return found === undefined ? '-' : `${found.ino} ${found.size} ${found.mtimeMs}`;
    })
    .join();
}
