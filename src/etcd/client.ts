// Asks an etcd through its own JSON gateway (/v3/...), which needs no library: HTTP, or HTTPS with this node's
// certificate.
//
// The endpoint that answered last is asked first, and the next one beside it when it is silent for a moment: a member
// may be cut off, or have lost its leader and never answer what it was asked before there is a new one (etcd 3.4
// forgets such a read). When none answers the outcome is unknown: ColoError(arbiter). So one question may be done
// twice, by two members, and the answer may be that of the second: a question must mean the same then.

import { Agent as HttpAgent, request as httpRequest, type IncomingMessage, type RequestOptions } from 'node:http';
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https';
import { z } from 'zod';
import { delay } from '../base/clock.ts';
import { ColoError, errorCodes, errorText } from '../base/errors.ts';
import type { Identity } from '../base/identity.ts';
import { parseJson } from '../base/json.ts';
import { type TlsIdentity, tlsIdentity } from '../base/tls-identity.ts';
import { etcdAnswerBytesMax, etcdAskTimeoutMs, etcdNextAfterMs } from './limits.ts';

export interface EtcdClientOptions {
  /** Client URLs of the members: http://HOST:PORT, or https:// with `identity`. */
  endpoints: readonly string[];
  /**
   * For https: this node's certificate, and the authority that the members' certificates are of. A function is asked
   * for each request: a renewed certificate counts from then on.
   */
  identity?: Identity | (() => Identity);
  /** How long asking may take, all members together. */
  askTimeoutMs?: number;
  /** The longest answer that is read. */
  answerBytesMax?: number;
}

export class EtcdClient {
  private readonly endpoints: readonly URL[];
  private readonly askTimeoutMs: number;
  private readonly answerBytesMax: number;
  private readonly identity: () => Identity | undefined;
  private readonly agents: { http: HttpAgent; https: HttpsAgent };
  private readonly closed = new AbortController();
  /** The member that answered last. */
  private first = 0;

  constructor(options: EtcdClientOptions) {
    this.endpoints = options.endpoints.map(parseEndpoint);
    if (this.endpoints.length === 0) throw new ColoError(errorCodes.input, 'etcd has no endpoints');
    this.askTimeoutMs = options.askTimeoutMs ?? etcdAskTimeoutMs;
    this.answerBytesMax = options.answerBytesMax ?? etcdAnswerBytesMax;
    const { identity } = options;
    if (identity === undefined && this.endpoints.some((url) => url.protocol === 'https:'))
      throw new ColoError(errorCodes.input, 'etcd over https needs the certificates of this node');
    this.identity = typeof identity === 'function' ? identity : () => identity;
    this.agents = {
      http: new HttpAgent({ keepAlive: true }),
      https: new HttpsAgent({ keepAlive: true, minVersion: 'TLSv1.3' }),
    };
  }

  /**
   * Asks the members until one answers: the next one at once when one has failed, and soon when one is silent; then
   * from the beginning. The first answer counts; the other requests are given up.
   */
  async ask<T>(path: string, question: unknown, schema: z.ZodType<T>): Promise<T> {
    const over = new AbortController();
    const timeout = AbortSignal.timeout(this.askTimeoutMs);
    const signal = AbortSignal.any([timeout, this.closed.signal, over.signal]);
    const body = JSON.stringify(question);
    const failures = new Map<string, string>();
    const answer = Promise.withResolvers<T>();
    let pending = 0;
    const askOne = async (at: number, endpoint: URL): Promise<void> => {
      pending += 1;
      try {
        answer.resolve(schema.parse(parseJson(await this.post(endpoint, path, { body, signal }))));
        if (!over.signal.aborted) this.first = at;
        over.abort();
      } catch (error) {
        failures.set(endpoint.host, timeout.aborted ? `no answer for ${this.askTimeoutMs} ms` : failureText(error));
      }
      pending -= 1;
    };
    for (let count = 0; !signal.aborted && (count < this.endpoints.length || pending > 0); count += 1) {
      const at = (this.first + count) % this.endpoints.length;
      const asked = askOne(at, this.endpoints[at] as URL);
      // A member that fails at once is not asked again at once.
      const isFirstRound = count < this.endpoints.length;
      await Promise.race([...(isFirstRound ? [asked] : []), answer.promise, delay(etcdNextAfterMs)]);
    }
    if (over.signal.aborted) return answer.promise;
    const said = [...failures].map(([host, text]) => `${host}: ${text}`).join('; ');
    throw new ColoError(errorCodes.arbiter, `no member of etcd answered (${said})`, {
      hint: 'Check that a majority of the members runs (etcdctl endpoint status) and can be reached from this node.',
    });
  }

  async close(): Promise<void> {
    this.closed.abort();
    this.agents.http.destroy();
    this.agents.https.destroy();
  }

  /** The agent keeps connections apart by these. */
  private secret(): Partial<TlsIdentity> {
    const identity = this.identity();
    return identity === undefined ? {} : tlsIdentity(identity);
  }

  private post(endpoint: URL, path: string, { body, signal }: { body: string; signal: AbortSignal }): Promise<string> {
    const headers = { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) };
    const options: RequestOptions = { method: 'POST', headers, signal };
    const url = new URL(path, endpoint);
    const isSecure = endpoint.protocol === 'https:';
    const request = isSecure
      ? httpsRequest(url, { ...options, ...this.secret(), agent: this.agents.https })
      : httpRequest(url, { ...options, agent: this.agents.http });
    return new Promise<string>((resolve, reject) => {
      request.once('error', reject);
      request.once('response', (response) => readResponse(response, this.answerBytesMax).then(resolve, reject));
      request.end(body);
    });
  }
}

function failureText(error: unknown): string {
  return error instanceof z.ZodError ? 'it is not etcd 3.4 or later' : errorText(error);
}

function parseEndpoint(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url !== undefined && (url.protocol === 'http:' || url.protocol === 'https:')) return url;
  throw new ColoError(errorCodes.input, `${JSON.stringify(text)} is no client URL of etcd`, {
    hint: 'Write it as https://HOST:2379.',
  });
}

async function readResponse(response: IncomingMessage, bytesMax: number): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > bytesMax) throw new Error(`it answered with more than ${bytesMax} bytes`);
    chunks.push(chunk);
  }
  const text = Buffer.concat(chunks).toString('utf8');
  if (response.statusCode === 200) return text;
  throw new Error(`it answered ${response.statusCode}: ${text.slice(0, 200)}`);
}

/** Keys and values travel in base64. */
export function toBase64(text: string): string {
  return Buffer.from(text, 'utf8').toString('base64');
}

export function fromBase64(text: string): string {
  return Buffer.from(text, 'base64').toString('utf8');
}
