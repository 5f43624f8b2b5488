// Asks an etcd through its own JSON gateway (/v3/...), which needs no library: HTTP, or HTTPS with this node's certificate.
//
// Every endpoint is tried, the one that answered last first. When none answers the outcome is unknown: ColoError(arbiter).
// A question that must not be done twice has to say so by itself (compare-and-swap), since a member that did not answer
// may have done it all the same.

import { Agent as HttpAgent, request as httpRequest, type IncomingMessage, type RequestOptions } from 'node:http';
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https';
import { z } from 'zod';
import { ColoError, errorCodes, errorText } from '../base/errors.ts';
import type { Identity } from '../base/identity.ts';
import { etcdAnswerBytesMax, etcdRequestTimeoutMs } from './limits.ts';

export interface EtcdClientOptions {
  /** Client URLs of the members: http://HOST:PORT, or https:// with `identity`. */
  endpoints: readonly string[];
  /** For https: this node's certificate, and the authority that the members' certificates are of. */
  identity?: Identity;
  /** How long one member may take to answer. */
  requestTimeoutMs?: number;
  /** The longest answer that is read. */
  answerBytesMax?: number;
}

export class EtcdClient {
  private readonly endpoints: readonly URL[];
  private readonly requestTimeoutMs: number;
  private readonly answerBytesMax: number;
  private readonly agents: { http: HttpAgent; https: HttpsAgent };
  private readonly closed = new AbortController();
  /** The member that answered last. */
  private first = 0;

  constructor(options: EtcdClientOptions) {
    this.endpoints = options.endpoints.map(parseEndpoint);
    if (this.endpoints.length === 0) throw new ColoError(errorCodes.input, 'etcd has no endpoints');
    this.requestTimeoutMs = options.requestTimeoutMs ?? etcdRequestTimeoutMs;
    this.answerBytesMax = options.answerBytesMax ?? etcdAnswerBytesMax;
    const { identity } = options;
    if (identity === undefined && this.endpoints.some((url) => url.protocol === 'https:'))
      throw new ColoError(errorCodes.input, 'etcd over https needs the certificates of this node');
    const secret = identity && { ca: identity.ca, cert: identity.certificate, key: identity.key };
    this.agents = {
      http: new HttpAgent({ keepAlive: true }),
      https: new HttpsAgent({ keepAlive: true, minVersion: 'TLSv1.3', ...secret }),
    };
  }

  /** Asks the members in turn until one answers. */
  async ask<T>(path: string, question: unknown, schema: z.ZodType<T>): Promise<T> {
    const failures: string[] = [];
    for (let index = 0; index < this.endpoints.length; index += 1) {
      const at = (this.first + index) % this.endpoints.length;
      const endpoint = this.endpoints[at];
      if (endpoint === undefined || this.closed.signal.aborted) break;
      try {
        const answer = schema.parse(parseJson(await this.post(endpoint, path, JSON.stringify(question))));
        this.first = at;
        return answer;
      } catch (error) {
        failures.push(
          `${endpoint.host}: ${error instanceof z.ZodError ? 'it is not etcd 3.4 or later' : errorText(error)}`,
        );
      }
    }
    throw new ColoError(errorCodes.arbiter, `no member of etcd answered (${failures.join('; ')})`, {
      hint: 'Check that a majority of the members runs (etcdctl endpoint status) and can be reached from this node.',
    });
  }

  async close(): Promise<void> {
    this.closed.abort();
    this.agents.http.destroy();
    this.agents.https.destroy();
  }

  private async post(endpoint: URL, path: string, body: string): Promise<string> {
    const timeout = AbortSignal.timeout(this.requestTimeoutMs);
    const options: RequestOptions = {
      method: 'POST',
      headers: { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) },
      signal: AbortSignal.any([timeout, this.closed.signal]),
    };
    const url = new URL(path, endpoint);
    const isSecure = endpoint.protocol === 'https:';
    const request = isSecure
      ? httpsRequest(url, { ...options, agent: this.agents.https })
      : httpRequest(url, { ...options, agent: this.agents.http });
    try {
      return await new Promise<string>((resolve, reject) => {
        request.once('error', reject);
        request.once('response', (answer) => readAnswer(answer, this.answerBytesMax).then(resolve, reject));
        request.end(body);
      });
    } catch (error) {
      throw timeout.aborted ? new Error(`no answer for ${this.requestTimeoutMs} ms`) : error;
    }
  }
}

function parseEndpoint(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url !== undefined && (url.protocol === 'http:' || url.protocol === 'https:')) return url;
  throw new ColoError(errorCodes.input, `${JSON.stringify(text)} is no client URL of etcd`, {
    hint: 'Write it as https://HOST:2379.',
  });
}

async function readAnswer(answer: IncomingMessage, bytesMax: number): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of answer as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > bytesMax) throw new Error(`it answered with more than ${bytesMax} bytes`);
    chunks.push(chunk);
  }
  const text = Buffer.concat(chunks).toString('utf8');
  if (answer.statusCode === 200) return text;
  throw new Error(`it answered ${answer.statusCode}: ${text.slice(0, 200)}`);
}

/** Keys and values travel in base64. */
export function toBase64(text: string): string {
  return Buffer.from(text, 'utf8').toString('base64');
}

export function fromBase64(text: string): string {
  return Buffer.from(text, 'base64').toString('utf8');
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
