// How etcd's members are asked: a silent one is not waited for. The promises of an arbiter are tested against Debian's
// etcd (test/failover/etcd.test.ts).

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { test } from 'node:test';
import { ColoError, errorCodes } from '../base/errors.ts';
import { EtcdArbiter } from './etcd.ts';

/** A member that does with a request what the test says. */
async function member(take: RequestListener) {
  let requests = 0;
  const server = createServer((request, answer) => {
    requests += 1;
    request.resume();
    take(request, answer);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    get requests() {
      return requests;
    },
    close: () => {
      server.closeAllConnections();
      server.close();
    },
  };
}

const silent: RequestListener = () => undefined;
const noRecord: RequestListener = (_, answer) => void answer.end('{"header":{}}');
const refusing: RequestListener = (_, answer) => void answer.writeHead(503).end('no leader');

test('a member that never answers is not waited for, and the next question goes to the one that did', async () => {
  const asked: string[] = [];
  const noting = (name: string, take: RequestListener) =>
    member((request, answer) => {
      asked.push(name);
      take(request, answer);
    });
  const members = [await noting('silent', silent), await noting('answering', noRecord)];
  const arbiter = new EtcdArbiter({ endpoints: members.map((one) => one.url), askTimeoutMs: 600_000 });
  assert.equal(await arbiter.read('guest'), undefined);
  assert.deepEqual(asked.slice(0, 2), ['silent', 'answering']);
  const before = asked.length;
  assert.equal(await arbiter.read('guest'), undefined);
  // On a starved host the other one may be asked beside it.
  assert.equal(asked[before], 'answering');
  await arbiter.close();
  for (const one of members) one.close();
});

test('a member that forgot a question is asked again, and answers a later one', async () => {
  let count = 0;
  const forgetful = await member((request, answer) => {
    count += 1;
    if (count > 2) noRecord(request, answer);
  });
  const arbiter = new EtcdArbiter({ endpoints: [forgetful.url], askTimeoutMs: 600_000 });
  assert.equal(await arbiter.read('guest'), undefined);
  assert.ok(count >= 3);
  await arbiter.close();
  forgetful.close();
});

test('a probe asks a member to write: one that can only be read fails it, and its answer is the reason', async () => {
  const full: RequestListener = (request, answer) => {
    if (request.url === '/v3/kv/range') answer.end('{"header":{}}');
    else answer.writeHead(500).end('mvcc: database space exceeded');
  };
  const one = await member(full);
  const arbiter = new EtcdArbiter({ endpoints: [one.url], askTimeoutMs: 600_000 });
  assert.equal(await arbiter.read('guest'), undefined);
  await assert.rejects(arbiter.probe('guest'), /database space exceeded/);
  await arbiter.close();
  one.close();
});

test('members that all refuse are an error at once, members that are silent one in bounded time', async () => {
  const refuses = await member(refusing);
  const says = await member(silent);
  const isUnreachable = (error: unknown) => error instanceof ColoError && error.code === errorCodes.arbiter;
  const first = new EtcdArbiter({ endpoints: [refuses.url, refuses.url], askTimeoutMs: 600_000 });
  await assert.rejects(first.read('guest'), isUnreachable);
  assert.ok(refuses.requests >= 2);
  const second = new EtcdArbiter({ endpoints: [says.url, refuses.url], askTimeoutMs: 400 });
  await assert.rejects(second.claim('guest', 1, { owner: 'left', peer: null }), isUnreachable);
  for (const arbiter of [first, second]) await arbiter.close();
  for (const one of [refuses, says]) one.close();
});
