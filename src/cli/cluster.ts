// `colo init` and `colo join`: the authority of a cluster, and a certificate for each of its nodes.

import { join as joinPath } from 'node:path';
import { isName } from '../arbiter/names.ts';
import { ColoError, errorCodes } from '../base/errors.ts';
import { createAuthority, issueCertificate, requireAuthority } from '../host/certificates.ts';
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
  options: { address: string[]; json: boolean },
): Promise<number> {
  checkName(node);
  await requireAuthority(folder);
  await ensurePackages(['openssl'], { why: 'make certificates' });
  const made = await issueCertificate(folder, { node, addresses: options.address });
  if (options.json) process.stdout.write(`${JSON.stringify({ node, folder: made })}\n`);
  else process.stdout.write(`Copy ${made} to the node ${node}, readable by its owner only: it is who ${node} is.\n`);
  return 0;
}
