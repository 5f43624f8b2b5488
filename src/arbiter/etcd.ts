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
// Unreachable. The endpoint that answered last is asked first, and the next one beside it when it is silent for a
// moment: a member may be cut off, or have lost its leader and never answer what it was asked before there is a new one
// (etcd 3.4 forgets such a read). So a takeover waits for the election and not for a timeout. Asking several at once is
// safe: the same claim wins once at most, and winning it before counts as won (resolveClaim).
//
// The probe is a claim from a term that no VM ever has. It goes the way of a real one: through a member with its
// certificate, a majority and the log on their disks, the quota (etcd counts a transaction's puts before it compares),
// and the rights to the key. Its comparison fails, so it makes no revision, however often it is asked.
//
// When none answers the outcome is unknown: ColoError(arbiter), and the caller reads before it claims again (Terms).
// A claim that was given up may still be committed later, by a member that had lost its majority. It is then the newest
// record, as if it had been claimed then; a caller that always starts from what it reads is right in both cases.

import { z } from 'zod';
import { ColoError, errorCodes } from '../base/errors.ts';
import { parseJson } from '../base/json.ts';
import { EtcdClient, type EtcdClientOptions, fromBase64, toBase64 } from '../etcd/client.ts';
import { type Arbiter, type ClaimResult, type Roles, resolveClaim, type TermRecord, UnknownTerm } from './arbiter.ts';
import { recordBytesMax } from './limits.ts';
import { checkNames, isName } from './names.ts';

export interface EtcdOptions extends EtcdClientOptions {
  /** Before all keys; several clusters of COLO may share an etcd. */
  prefix?: string;
}

/** The versions of a key never come near it: a claim each microsecond would take thirty years. */
const termOfNobody = 999_999_999_999_999;

const name = z.string().refine(isName);
const valueSchema = z.object({ term: z.int().positive(), owner: name, peer: name.nullable() });
const entrySchema = z.object({ version: z.string().regex(/^\d{1,15}$/), value: z.string().max(recordBytesMax) });
const rangeSchema = z.object({ kvs: z.array(entrySchema).optional() });
const claimSchema = z.object({
  succeeded: z.boolean().optional(),
  responses: z.array(z.object({ response_range: rangeSchema.optional() })).optional(),
});

export class EtcdArbiter implements Arbiter {
  private readonly client: EtcdClient;
  private readonly prefix: string;

  constructor(options: EtcdOptions) {
    this.client = new EtcdClient(options);
    this.prefix = options.prefix ?? '/colo';
  }

  async read(vm: string): Promise<TermRecord | undefined> {
    checkNames(vm);
    const answer = await this.client.ask('/v3/kv/range', { key: this.key(vm) }, rangeSchema);
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
    const answer = await this.client.ask('/v3/kv/txn', question, claimSchema);
    if (answer.succeeded === true) return { won: true, record };
    const newest = this.recordOf(vm, answer.responses?.[0]?.response_range ?? {});
    if (newest === undefined) throw new UnknownTerm(vm, expectedTerm);
    return resolveClaim(newest, expectedTerm, next);
  }

  async probe(vm: string): Promise<void> {
    await this.claim(vm, termOfNobody, { owner: 'probe', peer: null }).catch((error: unknown) => {
      if (!(error instanceof UnknownTerm)) throw error;
    });
  }

  close(): Promise<void> {
    return this.client.close();
  }

  private key(vm: string): string {
    return toBase64(`${this.prefix}/terms/${vm}`);
  }

  private recordOf(vm: string, answer: z.infer<typeof rangeSchema>): TermRecord | undefined {
    const entry = answer.kvs?.[0];
    if (entry === undefined) return undefined;
    const value = valueSchema.safeParse(parseJson(fromBase64(entry.value)));
    if (value.success && value.data.term === Number(entry.version)) return value.data;
    throw new ColoError(errorCodes.arbiter, `etcd's record ${this.prefix}/terms/${vm} is damaged`, {
      hint: `Make sure that ${vm} runs on no node, then remove the key (etcdctl del) and start the VM again.`,
    });
  }
}
