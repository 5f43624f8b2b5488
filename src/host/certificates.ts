// The certificates of a cluster: one authority, and one certificate per node that says who the node is. Made by openssl,
// which every host of a cluster has; nothing here is worth a library and its dozen dependencies.
//
//   FOLDER/ca.pem  ca.key                 the authority of the nodes (`colo init`); the key stays where it was made
//   FOLDER/people.pem  people.key         that of the people and programs who ask: links and etcd know nothing of it
//   FOLDER/NODE/ca.pem  people.pem  node.pem  node.key   what a node is given (base/identity.ts); a person gets no people.pem
//
// A node's certificate carries its name as common name and DNS name, and its addresses, and is good for both ends of a
// connection. So does a person's, with its role (base/roles.ts) as organizational unit, and it is good for asking only. Elliptic curve P-256: fast, and known to every TLS there is.
//
// Limits: no revocation. A node whose key was lost is kept out by a new authority (`colo init` again).

import { constants, existsSync } from 'node:fs';
import { access, chmod, copyFile, rm, writeFile } from 'node:fs/promises';
import { isIP } from 'node:net';
import { join } from 'node:path';
import { ColoError, errorCodes } from '../base/errors.ts';
import { identityFiles } from '../base/identity.ts';
import { makeFolder } from '../base/make-folder.ts';
import type { CertificateRole } from '../base/roles.ts';
import { runCommand } from './command.ts';

const authorityKey = 'ca.key';
const peopleKey = 'people.key';
const authorityDays = 3650;
const nodeDays = 825;
const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];

/** Makes the authority of a new cluster in `folder`; refuses to replace one. */
export async function createAuthority(folder: string, cluster: string): Promise<void> {
  try {
    makeFolder(folder, 0o700);
    await chmod(folder, 0o700);
    await access(folder, constants.W_OK);
  } catch (cause) {
    throw new ColoError(errorCodes.input, `the authority cannot be kept in ${folder}`, {
      cause,
      hint: 'Name a folder that you may write to; it is made when it is not there.',
    });
  }
  const keyPath = join(folder, authorityKey);
  try {
    await writeFile(keyPath, '', { flag: 'wx', mode: 0o600 });
  } catch (cause) {
    throw new ColoError(errorCodes.input, `${folder} holds the authority of a cluster already`, {
      cause,
      hint: 'Choose another folder; replacing an authority locks out every node of its cluster.',
    });
  }
  await makeAuthority(`/O=COLO/CN=${cluster}`, keyPath, join(folder, identityFiles.ca));
  await ensurePeople(folder);
}

/** Of clusters that were made before people had an authority of their own, it is made when it is first needed. */
async function ensurePeople(folder: string): Promise<void> {
  const keyPath = join(folder, peopleKey);
  if (existsSync(keyPath)) return;
  await writeFile(keyPath, '', { flag: 'wx', mode: 0o600 });
  await makeAuthority('/O=COLO/OU=people/CN=people', keyPath, join(folder, identityFiles.people));
}

async function makeAuthority(subject: string, keyPath: string, certificatePath: string): Promise<void> {
  await runCommand('openssl', [
    ...['req', '-x509', ...newKey, '-sha256', '-days', String(authorityDays), '-subj', subject],
    ...['-addext', 'basicConstraints=critical,CA:TRUE,pathlen:0'],
    ...['-addext', 'keyUsage=critical,keyCertSign,cRLSign'],
    ...['-keyout', keyPath, '-out', certificatePath],
  ]);
}

/** Refuses a folder without an authority that we can sign with. */
export async function requireAuthority(folder: string): Promise<void> {
  await access(join(folder, authorityKey), constants.R_OK).catch((cause: unknown) => {
    throw new ColoError(errorCodes.input, `${folder} holds no authority of a cluster that can be read`, {
      cause,
      hint: `Make one with: colo init ${folder}`,
    });
  });
}

export interface NodeCertificate {
  node: string;
  /** Addresses and names under which the node is reached, beside its own name. */
  addresses: readonly string[];
  days?: number;
  /** Whom it is for; a node when left out. */
  role?: CertificateRole;
}

/** Makes a node's certificate with the authority in `folder`; returns the folder to give to the node. */
export async function issueCertificate(folder: string, options: NodeCertificate): Promise<string> {
  const { node, addresses, days = nodeDays, role = 'node' } = options;
  const target = join(folder, node);
  makeFolder(target, 0o700);
  const at = (file: string) => join(target, file);
  const keyPath = at(identityFiles.key);
  await writeFile(keyPath, '', { mode: 0o600 });
  await runCommand('openssl', [
    'req',
    '-new',
    ...newKey,
    '-subj',
    `/O=COLO/OU=${role}/CN=${node}`,
    '-keyout',
    keyPath,
    '-out',
    at('request'),
  ]);
  await writeFile(at('extensions'), extensionsOf(node, addresses, role));
  if (role !== 'node') await ensurePeople(folder);
  const [authority, key] = role === 'node' ? [identityFiles.ca, authorityKey] : [identityFiles.people, peopleKey];
  await runCommand('openssl', [
    ...['x509', '-req', '-in', at('request'), '-sha256', '-days', String(days), '-extfile', at('extensions')],
    ...['-CA', join(folder, authority), '-CAkey', join(folder, key), '-CAcreateserial'],
    ...['-out', at(identityFiles.certificate)],
  ]);
  await copyFile(join(folder, identityFiles.ca), at(identityFiles.ca));
  if (role === 'node' && existsSync(join(folder, identityFiles.people)))
    await copyFile(join(folder, identityFiles.people), at(identityFiles.people));
  await Promise.all([rm(at('request')), rm(at('extensions'))]);
  return target;
}

function extensionsOf(node: string, addresses: readonly string[], role: CertificateRole): string {
  const isNode = role === 'node';
  const names = [`DNS:${node}`, ...addresses.map((one) => `${isIP(one) === 0 ? 'DNS' : 'IP'}:${one}`)];
  return [
    'basicConstraints=critical,CA:FALSE',
    'keyUsage=critical,digitalSignature',
    // Nobody but a node is asked anything.
    `extendedKeyUsage=${isNode ? 'serverAuth,' : ''}clientAuth`,
    'subjectKeyIdentifier=hash',
    'authorityKeyIdentifier=keyid',
    `subjectAltName=${[...new Set(names)].join(',')}`,
    '',
  ].join('\n');
}
