// Who calls: local root on the Unix socket, a certificate of the cluster's authority, or a token of a file. Anybody else is
// refused, and counted by the reason.
//
//   FILE   NAME:SHA256 of the token in hex, one a line; made by `colo token FILE NAME`

import { createHash, timingSafeEqual } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import type { IncomingMessage } from 'node:http';
import { TLSSocket } from 'node:tls';
import { ColoError, errorCodes, errorText } from '../base/errors.ts';

export type Caller = { kind: 'local' } | { kind: 'certificate'; name: string } | { kind: 'token'; name: string };
export interface RefusedCaller {
  kind: 'refused';
  reason: 'certificate' | 'token' | 'missing';
  text: string;
  /** For the log alone. */
  detail?: string;
}

const linePattern = /^([a-zA-Z0-9][a-zA-Z0-9_-]{0,62}):([a-f0-9]{64})$/;

export function tokenHash(token: string): string {
  return createHash('sha256').update(token).digest('hex');
}

/** Hashes by name. Read anew for each call with a token, so that one that was taken away counts at once. */
export function readTokens(path: string): Map<string, string> {
  if ((statSync(path).mode & 0o077) !== 0)
    throw new ColoError(errorCodes.input, `${path} can be read by others`, { hint: `chmod 600 ${path}` });
  const tokens = new Map<string, string>();
  for (const [index, line] of readFileSync(path, 'utf8').split('\n').entries()) {
    if (line.trim() === '' || line.startsWith('#')) continue;
    const match = linePattern.exec(line.trim());
    if (match === null) throw new ColoError(errorCodes.input, `${path}, line ${index + 1}: not NAME:SHA256`);
    tokens.set(match[1] ?? '', match[2] ?? '');
  }
  return tokens;
}

/** On a TLS connection; the Unix socket's callers are local. */
export function authenticate(question: IncomingMessage, tokensPath: string | undefined): Caller | RefusedCaller {
  const { socket } = question;
  if (!(socket instanceof TLSSocket)) return { kind: 'local' };
  const certificate = socket.getPeerCertificate();
  // Node gives an empty object when none was shown.
  if (Object.keys(certificate).length > 0) {
    const name: unknown = certificate.subject?.CN;
    if (socket.authorized && typeof name === 'string') return { kind: 'certificate', name };
    const why = String(socket.authorizationError ?? 'no name');
    return { kind: 'refused', reason: 'certificate', text: `the certificate is not accepted (${why})` };
  }
  const token = /^Bearer (\S+)$/.exec(question.headers.authorization ?? '')?.[1];
  if (token === undefined)
    return { kind: 'refused', reason: 'missing', text: 'neither a certificate of the cluster nor a token was given' };
  return byToken(token, tokensPath);
}

function byToken(token: string, tokensPath: string | undefined): Caller | RefusedCaller {
  try {
    const name = tokensPath === undefined ? undefined : nameOf(token, readTokens(tokensPath));
    if (name !== undefined) return { kind: 'token', name };
    return { kind: 'refused', reason: 'token', text: 'the token is not known' };
  } catch (error) {
    return { kind: 'refused', reason: 'token', text: 'no token can be checked here', detail: errorText(error) };
  }
}

function nameOf(token: string, tokens: Map<string, string>): string | undefined {
  const given = Buffer.from(tokenHash(token));
  let found: string | undefined;
  for (const [name, hash] of tokens) if (timingSafeEqual(given, Buffer.from(hash))) found = name;
  return found;
}
