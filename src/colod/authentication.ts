// Who calls: local root on the Unix socket, a certificate of the cluster's authority, or a token of a file. Anybody
// else is refused, and counted by the reason.
//
//   FILE   NAME:SHA256 of the token in hex:ROLE, one a line; made by `colo token FILE NAME`
//
// A line without a role is of before there were roles, and an operator's.

import { createHash, timingSafeEqual, X509Certificate } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import type { IncomingMessage } from 'node:http';
import { TLSSocket } from 'node:tls';
import { ColoError, errorCodes, errorText } from '../base/errors.ts';
import { type CertificateRole, certificateRole, isRole, type Role } from '../base/roles.ts';

/** `is`: what it may do (base/roles.ts). */
export type Caller = { kind: 'local' | 'certificate' | 'token'; name: string; is: CertificateRole };

/** Whoever may open a node's Unix socket. */
export const localCaller: Caller = { kind: 'local', name: '', is: 'node' };

export interface RefusedCaller {
  kind: 'refused';
  reason: 'certificate' | 'token' | 'missing';
  text: string;
  /** For the log alone. */
  detail?: string;
}

const linePattern = /^([a-zA-Z0-9][a-zA-Z0-9_-]{0,62}):([a-f0-9]{64})(?::(\w+))?$/;

interface Token {
  hash: string;
  role: Role;
}

export function tokenHash(token: string): string {
  return createHash('sha256').update(token).digest('hex');
}

/** By name. Read anew for each call with a token, so that one that was taken away counts at once. */
export function readTokens(path: string): Map<string, Token> {
  if ((statSync(path).mode & 0o077) !== 0)
    throw new ColoError(errorCodes.input, `${path} can be read by others`, { hint: `chmod 600 ${path}` });
  const tokens = new Map<string, Token>();
  for (const [index, line] of readFileSync(path, 'utf8').split('\n').entries()) {
    if (line.trim() === '' || line.startsWith('#')) continue;
    const match = linePattern.exec(line.trim());
    const [, name = '', hash = '', role = 'operator'] = match ?? [];
    if (match === null || !isRole(role))
      throw new ColoError(errorCodes.input, `${path}, line ${index + 1}: not NAME:SHA256:ROLE`);
    tokens.set(name, { hash, role });
  }
  return tokens;
}

/** On a TLS connection; the Unix socket's callers are local. */
export function authenticate(
  request: IncomingMessage,
  { tokensPath, ca }: { tokensPath: string | undefined; ca: string },
): Caller | RefusedCaller {
  const { socket } = request;
  if (!(socket instanceof TLSSocket)) return localCaller;
  // Nothing is known any more of a connection that is over.
  if (socket.destroyed) return { kind: 'refused', reason: 'missing', text: 'the connection is over' };
  const certificate = socket.getPeerCertificate();
  // Node gives an empty object when none was shown.
  if (Object.keys(certificate).length > 0) {
    const name: unknown = certificate.subject?.CN;
    const is = roleOf(socket, certificate.subject, ca);
    if (socket.authorized && typeof name === 'string' && is !== undefined) return { kind: 'certificate', name, is };
    const why = String(socket.authorizationError ?? (is === undefined ? 'no role that is known' : 'no name'));
    return { kind: 'refused', reason: 'certificate', text: `the certificate is not accepted (${why})` };
  }
  const token = /^Bearer (\S+)$/.exec(request.headers.authorization ?? '')?.[1];
  if (token === undefined)
    return { kind: 'refused', reason: 'missing', text: 'neither a certificate of the cluster nor a token was given' };
  return byToken(token, tokensPath);
}

/** A node is only who the nodes' authority says it is. */
function roleOf(socket: TLSSocket, subject: { OU?: unknown }, ca: string): CertificateRole | undefined {
  const is = certificateRole(subject);
  const isOfNodes = () => socket.getPeerX509Certificate()?.verify(new X509Certificate(ca).publicKey) === true;
  return is !== 'node' || isOfNodes() ? is : undefined;
}

function byToken(token: string, tokensPath: string | undefined): Caller | RefusedCaller {
  try {
    const caller = tokensPath === undefined ? undefined : callerOf(token, readTokens(tokensPath));
    if (caller !== undefined) return caller;
    return { kind: 'refused', reason: 'token', text: 'the token is not known' };
  } catch (error) {
    return { kind: 'refused', reason: 'token', text: 'no token can be checked here', detail: errorText(error) };
  }
}

function callerOf(token: string, tokens: Map<string, Token>): Caller | undefined {
  const given = Buffer.from(tokenHash(token));
  let found: Caller | undefined;
  for (const [name, { hash, role }] of tokens)
    if (timingSafeEqual(given, Buffer.from(hash))) found = { kind: 'token', name, is: role };
  return found;
}
