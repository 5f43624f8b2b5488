// The certificates of a cluster: one authority, and one certificate per node that says who the node is. Made by
// openssl, which every host of a cluster has; nothing here is worth a library and its dozen dependencies.
//
//   FOLDER/ca.pem  ca.key                 the authority of the nodes (`colo init`); the key stays where it was made
//   FOLDER/people.pem  people.key         that of the people and programs who ask: links and etcd know nothing of it
//   FOLDER/NODE/ca.pem  people.pem  node.pem  node.key   what a node is given (base/identity.ts); a person gets no
//                                                        people.pem
//
// A node's certificate carries its name as common name and DNS name, and its addresses, and is good for both ends of a
// connection. So does a person's, with its role (base/roles.ts) as organizational unit, and it is good for asking only.
// Elliptic curve P-256: fast, and known to every TLS there is.
//
// What was issued is kept in FOLDER/issued, so that all certificates of a name can be revoked. What is revoked is
// listed in FOLDER/revoked.pem, a list of each authority, the nodes' first (etcd reads one). The lists are good as long
// as the authorities: one that ran out would lock everybody out.

import { X509Certificate } from 'node:crypto';
import { constants, existsSync } from 'node:fs';
import { access, chmod, copyFile, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { isIP } from 'node:net';
import { join } from 'node:path';
import { ColoError, errorCodes } from '../base/errors.ts';
import { identityFiles } from '../base/identity.ts';
import { makeFolder } from '../base/make-folder.ts';
import { type CertificateRole, certificateRole } from '../base/roles.ts';
import { runCommand } from './command.ts';

const authorityKey = 'ca.key';
const peopleKey = 'people.key';
const issuedFolder = 'issued';
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

/** Clusters that were made before people had an authority of their own get one when it is first needed. */
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
  const made = new X509Certificate(await readFile(at(identityFiles.certificate)));
  makeFolder(join(folder, issuedFolder), 0o700);
  await copyFile(at(identityFiles.certificate), join(folder, issuedFolder, `${node}.${made.serialNumber}.pem`));
  await copyFile(join(folder, identityFiles.ca), at(identityFiles.ca));
  if (existsSync(join(folder, identityFiles.revoked)))
    await copyFile(join(folder, identityFiles.revoked), at(identityFiles.revoked));
  if (role === 'node' && existsSync(join(folder, identityFiles.people)))
    await copyFile(join(folder, identityFiles.people), at(identityFiles.people));
  await Promise.all([rm(at('request')), rm(at('extensions'))]);
  return target;
}

/** A new certificate for the same name, role and addresses; the old one counts until it is over or revoked. */
export async function renewCertificate(folder: string, node: string): Promise<string> {
  const certificate = await newestCertificate(folder, node);
  const { OU: unit } = parsedSubject(certificate);
  const role = certificateRole({ OU: unit });
  if (role === undefined)
    throw new ColoError(errorCodes.input, `the certificate of ${node} has a role that is not known: ${unit}`);
  const addresses = [...(certificate.subjectAltName ?? '').matchAll(/(?:DNS|IP Address):([^,\s]+)/g)].map(
    ([, name = '']) => name,
  );
  return issueCertificate(folder, { node, addresses: addresses.filter((one) => one !== node), role });
}

/**
 * Lists the certificates of a name as revoked, all or (`keepNewest`) all but the newest one; returns how many there
 * are.
 */
export async function revokeCertificates(
  folder: string,
  node: string,
  options: { keepNewest: boolean },
): Promise<number> {
  const newest = await newestCertificate(folder, node);
  const all = new Map([[newest.serialNumber, newest]]);
  for (const file of existsSync(join(folder, issuedFolder)) ? await readdir(join(folder, issuedFolder)) : []) {
    if (!file.startsWith(`${node}.`)) continue;
    const certificate = new X509Certificate(await readFile(join(folder, issuedFolder, file)));
    all.set(certificate.serialNumber, certificate);
  }
  if (options.keepNewest) all.delete(newest.serialNumber);
  await ensurePeople(folder);
  const lists: string[] = [];
  for (const [authority, key] of [
    [identityFiles.ca, authorityKey] as const,
    [identityFiles.people, peopleKey] as const,
  ]) {
    const { publicKey } = new X509Certificate(await readFile(join(folder, authority)));
    const own = [...all.values()].filter((one) => one.verify(publicKey));
    lists.push(await listRevoked(folder, { authority, key, revoked: own }));
  }
  const path = join(folder, identityFiles.revoked);
  await writeFile(`${path}.new`, lists.join(''));
  await rename(`${path}.new`, path);
  return all.size;
}

/** Adds to the list of one authority what is not in it, and signs it anew. */
async function listRevoked(
  folder: string,
  { authority, key, revoked }: { authority: string; key: string; revoked: X509Certificate[] },
): Promise<string> {
  const at = (file: string) => join(folder, issuedFolder, `${authority}.${file}`);
  makeFolder(join(folder, issuedFolder), 0o700);
  const before = existsSync(at('index')) ? await readFile(at('index'), 'utf8') : '';
  const lines = revoked
    .filter(({ serialNumber }) => !before.includes(`\t${serialNumber}\t`))
    .map(
      (one) =>
        `R\t${asn1Time(one.validTo)}\t${asn1Time()}\t${one.serialNumber}\tunknown\t/CN=${parsedSubject(one).CN}\n`,
    );
  await writeFile(at('index'), before + lines.join(''));
  await writeFile(at('config'), `[ca]\ndefault_ca=own\n[own]\ndatabase=${at('index')}\ndefault_md=sha256\n`);
  return runCommand('openssl', [
    ...['ca', '-gencrl', '-config', at('config'), '-crldays', String(authorityDays)],
    ...['-cert', join(folder, authority), '-keyfile', join(folder, key)],
  ]);
}

async function newestCertificate(folder: string, node: string): Promise<X509Certificate> {
  const path = join(folder, node, identityFiles.certificate);
  const text = await readFile(path).catch((cause: unknown) => {
    throw new ColoError(errorCodes.input, `${folder} has issued no certificate to ${node}`, { cause });
  });
  return new X509Certificate(text);
}

function parsedSubject({ subject }: X509Certificate): { CN?: string; OU?: string } {
  return Object.fromEntries(subject.split('\n').map((line) => line.split('=') as [string, string]));
}

/** Two digits each: year to second, of now when no moment is given. */
function asn1Time(moment?: string): string {
  const time = moment === undefined ? new Date() : new Date(moment);
  return `${time.toISOString().replaceAll(/[-:T]/g, '').slice(2, 14)}Z`;
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
