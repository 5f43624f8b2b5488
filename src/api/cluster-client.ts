// Asks the service of a node: on its Unix socket, or over TLS with a certificate or a token. For the command line, and
// for one node that asks another.

import { request as httpRequest, type IncomingMessage, type RequestOptions } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { checkServerIdentity, type PeerCertificate } from 'node:tls';
import { ColoError, errorCodes } from '../base/errors.ts';
import type { Identity } from '../base/identity.ts';
import { certificateRole } from '../base/roles.ts';
import { revokedOf } from '../base/tls-identity.ts';
import { readBody } from './body.ts';
import { answerBytesMax } from './limits.ts';
import { refusalOf } from './node-client.ts';

/** Where to ask, and as whom. */
export type Target =
  | { socketPath: string }
  | {
      host: string;
      port: number;
      /** The authority whose nodes are believed. */
      ca: string;
      /** Whom we mean to reach, by its certificate; without it, the certificate has to name the host. */
      node?: string;
      as: Pick<Identity, 'certificate' | 'key' | 'crl'> | { token: string };
    };

export interface ServiceRequest {
  method: 'GET' | 'POST' | 'DELETE';
  path: string;
  body?: unknown;
  timeoutMs?: number;
}

function targetText(target: Target): string {
  return 'socketPath' in target ? target.socketPath : `https://${target.host}:${target.port}`;
}

/** The response's JSON; a refusal becomes the ColoError that the node meant. */
export async function callService(target: Target, request: ServiceRequest): Promise<unknown> {
  const { timeoutMs = 10_000 } = request;
  const timeout = AbortSignal.timeout(timeoutMs);
  const response = await ask(target, request, timeout).catch((cause: unknown) => {
    throw unreachable(target, timeout.aborted ? new Error(`no answer for ${timeoutMs} ms`) : cause);
  });
  const text = await readBody(response, answerBytesMax);
  const body: unknown = text === '' ? undefined : JSON.parse(text);
  if ((response.statusCode ?? 500) >= 400) throw refusalOf(body);
  return body;
}

/** Server-sent events of the service, until the signal or the server ends them. */
export async function* streamService(target: Target, path: string, signal: AbortSignal): AsyncGenerator<unknown> {
  const response = await ask(target, { method: 'GET', path }, signal).catch((cause: unknown) => {
    throw unreachable(target, cause);
  });
  if (response.statusCode !== 200) throw refusalOf(JSON.parse(await readBody(response, answerBytesMax)));
  response.setEncoding('utf8');
  let text = '';
  for await (const chunk of response as AsyncIterable<string>) {
    text += chunk;
    if (text.length > answerBytesMax) throw unreachable(target, new Error('an event is too long'));
    for (let end = text.indexOf('\n\n'); end >= 0; end = text.indexOf('\n\n')) {
      const data = /^data: (.*)$/m.exec(text.slice(0, end))?.[1];
      text = text.slice(end + 2);
      if (data !== undefined) yield JSON.parse(data) as unknown;
    }
  }
}

interface CallOptions extends RequestOptions {
  headers: Record<string, string | number>;
}

function ask(target: Target, request: ServiceRequest, signal: AbortSignal): Promise<IncomingMessage> {
  const body = request.body === undefined ? undefined : JSON.stringify(request.body);
  const options: CallOptions = {
    method: request.method,
    path: request.path,
    signal,
    headers:
      body === undefined ? {} : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) },
  };
  return new Promise((resolve, reject) => {
    const call = 'socketPath' in target ? httpRequest({ ...options, ...target }) : secureRequest(target, options);
    call.once('error', reject);
    call.once('response', resolve);
    call.end(body);
  });
}

function secureRequest(target: Exclude<Target, { socketPath: string }>, options: CallOptions) {
  const { host, port, ca, node, as } = target;
  const token: Record<string, string> = 'token' in as ? { authorization: `Bearer ${as.token}` } : {};
  const secret = 'token' in as ? {} : { cert: as.certificate, key: as.key, ...revokedOf(as.crl) };
  return httpsRequest({
    ...options,
    ...{ host, port, ca, ...secret, minVersion: 'TLSv1.3', agent: false },
    headers: { ...options.headers, ...token },
    checkServerIdentity: (name: string, certificate: PeerCertificate) =>
      node === undefined ? checkServerIdentity(name, certificate) : checkNode(node, certificate),
  });
}

function checkNode(node: string, certificate: PeerCertificate): Error | undefined {
  const name: unknown = certificate.subject?.CN;
  if (certificateRole(certificate.subject) !== 'node') return new Error(`its certificate is no node's`);
  return name === node ? undefined : new Error(`its certificate is that of ${String(name)}, not of ${node}`);
}

function unreachable(target: Target, cause: unknown): ColoError {
  return new ColoError(errorCodes.host, `colod at ${targetText(target)} does not answer`, {
    cause,
    hint: 'See whether it runs (systemctl status colod), and whether address, certificates or token are right.',
  });
}
