// An identity (identity.ts) as TLS takes it, and servers that go on with a renewed certificate, or a list of revoked
// ones, from the next connection on.

import type { Server as TlsServer } from 'node:tls';
import type { Identity } from './identity.ts';

export interface TlsIdentity {
  ca: string[];
  cert: string;
  key: string;
  crl?: string[];
}

/** What TLS needs of one who proves who it is. `withPeople`: and who believes the authority of people as well. */
export function tlsIdentity({ ca, people, certificate, key, crl }: Identity, { withPeople = false } = {}): TlsIdentity {
  const authorities = withPeople && people !== undefined ? [ca, people] : [ca];
  return { ca: authorities, cert: certificate, key, ...revokedOf(crl) };
}

/** One list a piece: of several in one text only the first would count. */
export function revokedOf(crl: string | undefined): { crl?: string[] } {
  const lists = crl?.match(/-----BEGIN X509 CRL-----[^]+?-----END X509 CRL-----/g) ?? [];
  return lists.length === 0 ? {} : { crl: lists };
}

/**
 * Looks at the identity before each connection, and has the server go on with another one. Returns a function that
 * looks as well, for what is asked on connections that stand.
 */
export function followIdentity(
  server: TlsServer,
  source: () => Identity,
  { optionsOf, changed = () => undefined }: { optionsOf: (identity: Identity) => TlsIdentity; changed?: () => void },
): () => void {
  let known = source();
  const look = () => {
    const now = source();
    if (now === known) return;
    known = now;
    server.setSecureContext({ ...optionsOf(now), minVersion: 'TLSv1.3' });
    changed();
  };
  // First of all: the connection that comes is met with what it finds.
  server.prependListener('connection', look);
  return look;
}
