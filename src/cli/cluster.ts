// `colo init` and `colo join`: the authority of a cluster, and a certificate for each of its nodes.

import { join as joinPath } from 'node:path';
import { isName } from '../arbiter/names.ts';
import { ColoError, errorCodes } from '../base/errors.ts';
import type { CertificateRole } from '../base/roles.ts';
import {
  createAuthority,
  issueCertificate,
  renewCertificate,
  requireAuthority,
  revokeCertificates,
} from '../host/certificates.ts';
import { ensurePackages } from '../host/packages.ts';

function checkName(name: string): void {
  if (isName(name)) return;
  throw new ColoError(errorCodes.input, `${JSON.stringify(name)} cannot name a node or a cluster`, {
    hint: 'Use up to 63 letters, digits, dashes and underscores, beginning with a letter or a digit.',
  });
}

export async function init(folder: string, options: { name: string; json: boolean }): Promise<number> {
  checkName(options.name);
  await ensurePackages(['openssl'], { why: 'make certificates' });
  await createAuthority(folder, options.name);
  if (options.json) {
    process.stdout.write(`${JSON.stringify({ folder, name: options.name, key: joinPath(folder, 'ca.key') })}\n`);
    return 0;
  }
  process.stdout.write(
    `${folder} holds the authority of the cluster ${options.name}.\n` +
      `Keep ${joinPath(folder, 'ca.key')} here: whoever has it can be any node.\n` +
      `Next: colo join ${folder} NODE --address IP, for each node\n`,
  );
  return 0;
}

export async function join(
  folder: string,
  node: string,
  options: { address: string[]; role: CertificateRole; json: boolean },
): Promise<number> {
  checkName(node);
  await requireAuthority(folder);
  await ensurePackages(['openssl'], { why: 'make certificates' });
  const made = await issueCertificate(folder, { node, addresses: options.address, role: options.role });
  if (options.json) process.stdout.write(`${JSON.stringify({ node, role: options.role, folder: made })}\n`);
  else if (options.role !== 'node')
    process.stdout.write(
      `Give ${made} to ${node}, who is ${options.role} with it: colo ps --identity FOLDER --at https://NODE:7700\n`,
    );
  else process.stdout.write(`Copy ${made} to the node ${node}, readable by its owner only: it is who ${node} is.\n`);
  return 0;
}

export async function certificate(
  what: 'renew' | 'revoke',
  folder: string,
  name: string,
  options: { old: boolean; json: boolean },
): Promise<number> {
  checkName(name);
  await requireAuthority(folder);
  await ensurePackages(['openssl'], { why: 'make certificates' });
  if (what === 'renew') {
    const made = await renewCertificate(folder, name);
    if (options.json) process.stdout.write(`${JSON.stringify({ name, folder: made })}\n`);
    else
      process.stdout.write(
        `Copy ${made} over that of ${name}: it counts from the next connection on, without a restart.\n` +
          `The old one is good until it is over, or: colo certificate revoke ${folder} ${name} --old\n`,
      );
    return 0;
  }
  const count = await revokeCertificates(folder, name, { keepNewest: options.old });
  const file = joinPath(folder, 'revoked.pem');
  if (options.json) process.stdout.write(`${JSON.stringify({ name, revoked: count, file })}\n`);
  else
    process.stdout.write(
      `${count} certificate${count === 1 ? '' : 's'} of ${name} revoked. Copy ${file} into the folder of ` +
        'every node: it counts from\n' +
        `the next connection on, without a restart, and ends those of the API.\n`,
    );
  return 0;
}
