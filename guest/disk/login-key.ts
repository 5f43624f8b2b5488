// The key that opens the disk guest's SSH server: made with each build of its image, kept beside it, in nobody's
// repository.
//
// P-256, because Node.js writes that private key in a form that OpenSSH reads (PKCS #8).

import { generateKeyPairSync } from 'node:crypto';

export interface LoginKey {
  /** For the client's file, which nobody else may read. */
  privatePem: string;
  /** A line of authorized_keys. */
  publicLine: string;
}

export function makeLoginKey(): LoginKey {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const { x = '', y = '' } = publicKey.export({ format: 'jwk' });
  const uncompressed = 4;
  const point = Buffer.concat([Buffer.from([uncompressed]), Buffer.from(x, 'base64url'), Buffer.from(y, 'base64url')]);
  const kind = 'ecdsa-sha2-nistp256';
  const fields = [Buffer.from(kind), Buffer.from('nistp256'), point];
  const blob = Buffer.concat(fields.flatMap((field) => [lengthOf(field), field]));
  return {
    privatePem: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
    publicLine: `${kind} ${blob.toString('base64')} colo\n`,
  };
}

function lengthOf(field: Buffer): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(field.length);
  return bytes;
}
