// The store on an etcd of which one member is slow: a question that was asked twice is done again long after. The etcd
// here is a few lines that this test can hold up; a real one is in test/failover/etcd.test.ts.

import assert from 'node:assert/strict';
import { createServer, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import { type TestContext, test } from 'node:test';
import { z } from 'zod';
import { fromBase64 } from '../etcd/client.ts';
import { EtcdStore } from './etcd-store.ts';

const txnSchema = z.object({
  compare: z.array(z.object({ key: z.string(), mod_revision: z.string() })),
  success: z.array(z.object({ request_put: putSchema().optional() })),
});

function putSchema() {
  return z.object({ key: z.string(), value: z.string(), lease: z.string().optional() });
}

/** A process that stands still for seconds hears its answers late. */
const askTimeoutMs = 600_000;

/** One state behind two members; the first of them answers writes only when it is told to. */
class SlowEtcd {
  readonly entries = new Map<string, { value: string; mod_revision: string; lease?: string | undefined }>();
  revision = 1;
  isSlow = false;
  private readonly held: (() => void)[] = [];
  readonly endpoints: string[] = [];

  async open(context: TestContext): Promise<this> {
    for (const slow of [true, false]) {
      const server = createServer((question, answer) => {
        void read(question).then((body) => {
          const act = () => answer.end(JSON.stringify(this.answer(question.url ?? '', body)));
          if (slow && this.isSlow && /put|txn/.test(question.url ?? '')) this.held.push(act);
          else act();
        });
      });
      await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve));
      context.after(() => {
        server.closeAllConnections();
        server.close();
      });
      this.endpoints.push(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
    }
    return this;
  }

  get heldCount(): number {
    return this.held.length;
  }

  release(): void {
    for (const act of this.held.splice(0)) act();
  }

  private answer(path: string, body: unknown): unknown {
    if (path === '/v3/lease/grant') return { ID: '77' };
    if (path === '/v3/lease/keepalive') return { result: { TTL: '6' } };
    if (path === '/v3/kv/put') return this.put(putSchema().parse(body));
    if (path === '/v3/kv/txn') return this.change(txnSchema.parse(body));
    return { kvs: [...this.entries].map(([key, entry]) => ({ key, ...entry })) };
  }

  private put({ key, value, lease }: z.output<ReturnType<typeof putSchema>>): unknown {
    this.revision += 1;
    this.entries.set(key, { value, mod_revision: String(this.revision), lease });
    return { header: { revision: String(this.revision) } };
  }

  private change({ compare, success }: z.output<typeof txnSchema>): unknown {
    const [{ key, mod_revision } = { key: '', mod_revision: '' }] = compare;
    const found = this.entries.get(key);
    const header = () => ({ revision: String(this.revision) });
    if ((found?.mod_revision ?? '0') !== mod_revision)
      return {
        header: header(),
        responses: [{ response_range: found === undefined ? {} : { kvs: [{ key, ...found }] } }],
      };
    for (const { request_put: put } of success) if (put !== undefined) this.put(put);
    return { header: header(), succeeded: true, responses: [{}] };
  }
}

async function read(question: IncomingMessage): Promise<unknown> {
  let text = '';
  for await (const chunk of question as AsyncIterable<Buffer>) text += chunk.toString();
  return JSON.parse(text);
}

test('an announcement that a slow member does much later does not replace a newer one', async (context) => {
  const etcd = await new SlowEtcd().open(context);
  const store = new EtcdStore({ endpoints: etcd.endpoints, askTimeoutMs });
  const announced = () => [...etcd.entries.values()].map(({ value }) => fromBase64(value));
  await store.announce('nodes/h1', 'starts', 6000);
  etcd.isSlow = true;
  await store.announce('nodes/h1', 'secondary', 6000);
  // Once, or on a starved host more often.
  assert.ok(etcd.heldCount >= 1, 'the other member did it');
  await store.announce('nodes/h1', 'primary', 6000);
  etcd.isSlow = false;
  etcd.release();
  await store.announce('nodes/h1', 'primary', 6000);
  assert.deepEqual(announced(), ['primary']);
  await store.close();
});

test('a node that has just started takes over the announcement of its earlier process', async (context) => {
  const etcd = await new SlowEtcd().open(context);
  const stores = [1, 2].map(() => new EtcdStore({ endpoints: etcd.endpoints, askTimeoutMs }));
  for (const [index, store] of stores.entries()) {
    await store.announce('nodes/h1', `life ${index}`, 6000);
    assert.deepEqual(
      (await store.list()).map(({ value }) => value),
      [`life ${index}`],
    );
    await store.close();
  }
});
