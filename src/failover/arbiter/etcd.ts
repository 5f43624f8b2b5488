// The arbiter on etcd: one key per VM, written by compare-and-swap only, through etcd's own JSON gateway (/v3/kv/...).
//
//   key    PREFIX/terms/VM          value  {"term":5,"owner":"left","peer":null}
//   claim  if version(key) == expected term then put, else range        one transaction, one round trip
//
// etcd counts the versions of a key from 1, by one for each put, and only claims put here: so the version is the term,
// and comparing it needs no read before. The term inside the value is a cross-check: a key that somebody deleted and
// wrote again, or edited by hand, is refused as damaged.
//
// Reads and transactions are linearizable (etcd's default): they need a majority, and never show anything old.
//
// Unreachable. The endpoint that answered last is asked first, and the next one beside it when it is silent for a moment: a
// member may be cut off, or have lost its leader and never answer what it was asked before there is a new one (etcd 3.4
// forgets such a read). So a takeover waits for the election and not for a timeout. Asking several at once is safe: the
// same claim wins once at most, and winning it before counts as won (resolveClaim).
// When none answers the outcome is unknown: ColoError(arbiter), and the caller reads before it claims again (Terms).
// A claim that was given up may still be committed later, by a member that had lost its majority. It is then the newest
// record, as if it had been claimed then; a caller that always starts from what it reads is right in both cases.

import { Agent as HttpAgent, request as httpRequest, type IncomingMessage, type RequestOptions } from 'node:http';
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https';
import { z } from 'zod';
import { delay } from '../../base/clock.ts';
import { ColoError, errorCodes, errorText } from '../../base/errors.ts';
import type { Identity } from '../../base/identity.ts';
import { etcdAnswerBytesMax, etcdAskTimeoutMs, etcdNextAfterMs, recordBytesMax } from '../limits.ts';
import { type Arbiter, type ClaimResult, noRecord, type Roles, resolveClaim, type TermRecord } from './arbiter.ts';
import { checkNames, isName } from './names.ts';

export interface EtcdOptions {
  /** Client URLs of the members: http://HOST:PORT, or https:// with `identity`. */
  endpoints: readonly string[];
  /** For https: this node's certificate, and the authority that the members' certificates are of. */
  identity?: Identity;
  /** Before all keys; several clusters of COLO may share an etcd. */
  prefix?: string;
  /** How long asking may take, all members together. */
  askTimeoutMs?: number;
}

const name = z.string().refine(isName);
const valueSchema = z.object({ term: z.int().positive(), owner: name, peer: name.nullable() });
const entrySchema = z.object({ version: z.string().regex(/^\d{1,15}$/), value: z.string().max(recordBytesMax) });
const rangeSchema = z.object({ kvs: z.array(entrySchema).optional() });
const claimSchema = z.object({
  succeeded: z.boolean().optional(),
  responses: z.array(z.object({ response_range: rangeSchema.optional() })).optional(),
});

export class EtcdArbiter implements Arbiter {
  private readonly endpoints: readonly URL[];
  private readonly prefix: string;
  private readonly askTimeoutMs: number;
  private readonly agents: { http: HttpAgent; https: HttpsAgent };
  private readonly closed = new AbortController();
  /** The member that answered last. */
  private first = 0;

  constructor(options: EtcdOptions) {
    this.endpoints = options.endpoints.map(parseEndpoint);
    if (this.endpoints.length === 0) throw new ColoError(errorCodes.input, 'etcd has no endpoints');
    this.prefix = options.prefix ?? '/colo';
    this.askTimeoutMs = options.askTimeoutMs ?? etcdAskTimeoutMs;
    const { identity } = options;
    if (identity === undefined && this.endpoints.some((url) => url.protocol === 'https:'))
      throw new ColoError(errorCodes.input, 'etcd over https needs the certificates of this node');
    const secret = identity && { ca: identity.ca, cert: identity.certificate, key: identity.key };
    this.agents = {
      http: new HttpAgent({ keepAlive: true }),
      https: new HttpsAgent({ keepAlive: true, minVersion: 'TLSv1.3', ...secret }),
    };
  }

  async read(vm: string): Promise<TermRecord | undefined> {
    checkNames(vm);
    const answer = await this.ask('/v3/kv/range', { key: this.key(vm) }, rangeSchema);
    return this.recordOf(vm, answer);
  }

  async claim(vm: string, expectedTerm: number, next: Roles): Promise<ClaimResult> {
    checkNames(vm, next);
    const record: TermRecord = { term: expectedTerm + 1, owner: next.owner, peer: next.peer };
    const key = this.key(vm);
    const question = {
      compare: [{ key, target: 'VERSION', result: 'EQUAL', version: String(expectedTerm) }],
      success: [{ request_put: { key, value: toBase64(JSON.stringify(record)) } }],
      failure: [{ request_range: { key } }],
    };
    const answer = await this.ask('/v3/kv/txn', question, claimSchema);
    if (answer.succeeded === true) return { won: true, record };
    const newest = this.recordOf(vm, answer.responses?.[0]?.response_range ?? {});
    if (newest === undefined) throw noRecord(vm, expectedTerm);
    return resolveClaim(newest, expectedTerm, next);
  }

  async close(): Promise<void> {
    this.closed.abort();
    this.agents.http.destroy();
    this.agents.https.destroy();
  }

  private key(vm: string): string {
    return toBase64(`${this.prefix}/terms/${vm}`);
  }

  private recordOf(vm: string, answer: z.infer<typeof rangeSchema>): TermRecord | undefined {
    const entry = answer.kvs?.[0];
    if (entry === undefined) return undefined;
    const value = valueSchema.safeParse(parseJson(Buffer.from(entry.value, 'base64').toString('utf8')));
    if (value.success && value.data.term === Number(entry.version)) return value.data;
    throw new ColoError(errorCodes.arbiter, `etcd's record ${this.prefix}/terms/${vm} is damaged`, {
      hint: `Make sure that ${vm} runs on no node, then remove the key (etcdctl del) and start the VM again.`,
    });
  }

  /**
   * Asks the members until one answers: the next one at once when one has failed, and soon when one is silent; then from
   * the beginning. The first answer counts; the other requests are given up.
   */
  private async ask<T>(path: string, question: unknown, schema: z.ZodType<T>): Promise<T> {
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

  private post(endpoint: URL, path: string, { body, signal }: { body: string; signal: AbortSignal }): Promise<string> {
    const headers = { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) };
    const options: RequestOptions = { method: 'POST', headers, signal };
    const url = new URL(path, endpoint);
    const isSecure = endpoint.protocol === 'https:';
    const request = isSecure
      ? httpsRequest(url, { ...options, agent: this.agents.https })
      : httpRequest(url, { ...options, agent: this.agents.http });
    return new Promise<string>((resolve, reject) => {
      request.once('error', reject);
      request.once('response', (answer) => readAnswer(answer).then(resolve, reject));
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

async function readAnswer(answer: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of answer as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > etcdAnswerBytesMax) throw new Error(`it answered with more than ${etcdAnswerBytesMax} bytes`);
    chunks.push(chunk);
  }
  const text = Buffer.concat(chunks).toString('utf8');
  if (answer.statusCode === 200) return text;
  throw new Error(`it answered ${answer.statusCode}: ${text.slice(0, 200)}`);
}

function toBase64(text: string): string {
  return Buffer.from(text, 'utf8').toString('base64');
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
