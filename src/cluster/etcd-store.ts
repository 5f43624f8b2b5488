// The store on etcd: entries below PREFIX/registry/, changed by comparing etcd's own mod_revision, which grows with
// every change of anything and so is never used twice. An announced entry hangs on a lease of etcd, one per store: a
// node that dies, or is cut off, vanishes when its lease ends.
//
// A change counts as made, too, when the entry has its value already: the client may have asked two members
// (etcd/client.ts). So values that several nodes might want at once, and of which only one may be told that it was
// first, must differ.
//
// A node's announcement is changed from its last revision, too. A question that was asked twice may be done again by a
// slow member much later, and what it says would stay: nobody writes again what has not changed.
//
// An announcement whose lease is over (this node slept, or etcd was unreachable for longer) takes a new lease.

import { z } from 'zod';
import { ColoError, errorCodes } from '../base/errors.ts';
import { EtcdClient, type EtcdClientOptions, fromBase64, toBase64 } from '../etcd/client.ts';
import { announceTriesMax, listingBytesMax } from './limits.ts';
import { checkEntry, type Entry, type Store } from './store.ts';

const number = z.string().regex(/^\d{1,19}$/);
const listSchema = z.object({
  kvs: z
    .array(z.object({ key: z.string(), value: z.string().default(''), mod_revision: number, lease: number.optional() }))
    .optional(),
});
const changeSchema = z.object({
  header: z.object({ revision: number.optional() }).optional(),
  succeeded: z.boolean().optional(),
  responses: z.array(z.object({ response_range: listSchema.optional() })).optional(),
});
const grantSchema = z.object({ ID: number });
/** A lease that is over has no TTL. */
const keepaliveSchema = z.object({ result: z.object({ TTL: number.optional() }) });
const anySchema = z.object({});

export interface EtcdStoreOptions extends EtcdClientOptions {
  /** Before all keys; several clusters of COLO may share an etcd. */
  prefix?: string;
}

export class EtcdStore implements Store {
  private readonly client: EtcdClient;
  private readonly prefix: string;
  private lease: { id: string; ttlMs: number } | undefined;
  /** What hangs on the lease of now. */
  private readonly announced = new Map<string, string>();
  /** At which revision this store left its announcements. */
  private readonly revisions = new Map<string, string>();

  constructor(options: EtcdStoreOptions) {
    this.client = new EtcdClient({ answerBytesMax: listingBytesMax, ...options });
    this.prefix = `${options.prefix ?? '/colo'}/registry/`;
  }

  async list(): Promise<Entry[]> {
    // The end of the range is the prefix with its last character ("/") one greater ("0").
    const range = { key: toBase64(this.prefix), range_end: toBase64(`${this.prefix.slice(0, -1)}0`) };
    const { kvs = [] } = await this.client.ask('/v3/kv/range', range, listSchema);
    return kvs.map(({ key, value, mod_revision }) => ({
      key: fromBase64(key).slice(this.prefix.length),
      value: fromBase64(value),
      revision: Number(mod_revision),
    }));
  }

  async change(key: string, revision: number, value: string | null): Promise<boolean> {
    checkEntry(key, value);
    const name = this.key(key);
    const act =
      value === null ? { request_delete_range: { key: name } } : { request_put: { key: name, value: toBase64(value) } };
    const compare = [{ key: name, target: 'MOD', result: 'EQUAL', mod_revision: String(revision) }];
    const question = { compare, success: [act], failure: [{ request_range: { key: name } }] };
    const answer = await this.client.ask('/v3/kv/txn', question, changeSchema);
    if (answer.succeeded === true) return true;
    // Two members may have done it, and this be the second one's answer: what is there is what was to be.
    const found = answer.responses?.[0]?.response_range?.kvs?.[0];
    return found !== undefined && value !== null && fromBase64(found.value) === value;
  }

  async announce(key: string, value: string, ttlMs: number): Promise<void> {
    checkEntry(key, value);
    const { id, fresh } = await this.keepLease(ttlMs);
    // Unchanged and on a living lease: the lease alone keeps it.
    if (!fresh && this.announced.get(key) === value) return;
    this.announced.delete(key);
    for (let tries = 0; tries < announceTriesMax; tries += 1)
      if (await this.putAnnouncement(key, value, id)) {
        this.announced.set(key, value);
        return;
      }
    throw new ColoError(errorCodes.arbiter, `the entry ${key} is changed by somebody else all the time`, {
      hint: 'are there two nodes with one name?',
    });
  }

  /** False when it was at another revision than this store knew. */
  private async putAnnouncement(key: string, value: string, lease: string): Promise<boolean> {
    const name = this.key(key);
    const compare = [{ key: name, target: 'MOD', result: 'EQUAL', mod_revision: this.revisions.get(key) ?? '0' }];
    const put = { request_put: { key: name, value: toBase64(value), lease } };
    const question = { compare, success: [put], failure: [{ request_range: { key: name } }] };
    const { succeeded, header, responses } = await this.client.ask('/v3/kv/txn', question, changeSchema);
    const found = responses?.[0]?.response_range?.kvs?.[0];
    this.revisions.set(key, (succeeded === true ? header?.revision : found?.mod_revision) ?? '0');
    // Not made because another member had made it already (etcd/client.ts) is as good.
    return succeeded === true || (found?.value === toBase64(value) && found.lease === lease);
  }

  async withdraw(key: string): Promise<void> {
    checkEntry(key, null);
    this.announced.delete(key);
    await this.client.ask('/v3/kv/deleterange', { key: this.key(key) }, anySchema);
  }

  close(): Promise<void> {
    return this.client.close();
  }

  private async keepLease(ttlMs: number): Promise<{ id: string; fresh: boolean }> {
    if (this.lease !== undefined && this.lease.ttlMs === ttlMs) {
      const { id } = this.lease;
      const { result } = await this.client.ask('/v3/lease/keepalive', { ID: id }, keepaliveSchema);
      if (result.TTL !== undefined && result.TTL !== '0') return { id, fresh: false };
    }
    this.announced.clear();
    const { ID } = await this.client.ask('/v3/lease/grant', { TTL: String(Math.ceil(ttlMs / 1000)) }, grantSchema);
    this.lease = { id: ID, ttlMs };
    return { id: ID, fresh: true };
  }

  private key(key: string): string {
    return toBase64(this.prefix + key);
  }
}
