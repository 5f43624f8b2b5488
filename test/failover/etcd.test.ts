// The arbiter and the registry's store on Debian's etcd: one member without TLS, and three with mutual TLS of which
// some die.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { z } from 'zod';
import { arbiterConformance } from '../../src/arbiter/arbiter.conformance.ts';
import { EtcdArbiter } from '../../src/arbiter/etcd.ts';
import { WatchedArbiter } from '../../src/arbiter/watched.ts';
import { systemClock } from '../../src/base/clock.ts';
import { ColoError, errorCodes } from '../../src/base/errors.ts';
import { readIdentity } from '../../src/base/identity.ts';
import { EtcdStore } from '../../src/cluster/etcd-store.ts';
import { storeConformance } from '../../src/cluster/store.conformance.ts';
import { EtcdClient, toBase64 } from '../../src/etcd/client.ts';
import { createAuthority, issueCertificate } from '../../src/host/certificates.ts';
import { clusterPackages, ensurePackages } from '../../src/host/packages.ts';
import { EtcdMember } from '../../src/lab/etcd.ts';
import { freePorts } from '../../src/lan/gateway.ts';

const host = '127.0.0.1';
/** An answer that has to come comes late on a starved host, which may be without a leader for a while. */
const askTimeoutMs = 120_000;
const isUnreachable = (error: unknown) => error instanceof ColoError && error.code === errorCodes.arbiter;

before(() => ensurePackages(clusterPackages, { why: 'test the etcd arbiter' }));

interface Etcd {
  folder: string;
  members: EtcdMember[];
  end(): Promise<void>;
}

/** An etcd of `names.length` members; with `secure`, everybody shows a certificate of one authority. */
async function startEtcd(names: string[], secure: boolean, quota: { quotaBytes?: number } = {}): Promise<Etcd> {
  const folder = mkdtempSync('/dev/shm/colo-etcd-');
  if (secure) await createAuthority(join(folder, 'ca'), 'test');
  const ports = await freePorts(2 * names.length);
  const peerPort = (index: number) => ports[names.length + index] ?? 0;
  const scheme = secure ? 'https' : 'http';
  const cluster = names.map((name, index) => ({ name, peerUrl: `${scheme}://${host}:${peerPort(index)}` }));
  const members: EtcdMember[] = [];
  for (const [index, name] of names.entries()) {
    const identity = secure
      ? { identityFolder: await issueCertificate(join(folder, 'ca'), { node: name, addresses: [host] }) }
      : {};
    members.push(
      EtcdMember.spawn({
        ...{ name, host, clientPort: ports[index] ?? 0, peerPort: peerPort(index), cluster, ...identity, ...quota },
        ...{ dataDir: join(folder, name), logFile: join(folder, `${name}.log`) },
      }),
    );
  }
  const end = async () => {
    await Promise.all(members.map((member) => member.stop()));
    rmSync(folder, { recursive: true, force: true });
  };
  try {
    await Promise.all(members.map((member) => member.ready()));
  } catch (error) {
    await end();
    throw error;
  }
  return { folder, members, end };
}

describe('one member', () => {
  let etcd: Etcd;
  let clusters = 0;
  before(async () => {
    etcd = await startEtcd(['one'], false);
  });
  after(() => etcd.end());

  // Each test has a prefix of its own: an empty cluster as far as it can see.
  arbiterConformance('etcd', async () => {
    const prefix = `/colo-${clusters++}`;
    return {
      open: async () => new EtcdArbiter({ endpoints: etcd.members.map((one) => one.clientUrl), prefix, askTimeoutMs }),
      end: async () => undefined,
    };
  });

  storeConformance('etcd', async () => {
    const prefix = `/colo-${clusters++}`;
    return {
      open: async () => new EtcdStore({ endpoints: etcd.members.map((one) => one.clientUrl), prefix, askTimeoutMs }),
      end: async () => undefined,
    };
  });

  test('a record that was not written by claims is an error, never an answer', async () => {
    const { clientUrl } = etcd.members[0] ?? assert.fail();
    const write = (value: string) =>
      fetch(`${clientUrl}/v3/kv/put`, {
        method: 'POST',
        body: JSON.stringify({ key: btoa('/hand/terms/guest'), value: btoa(value) }),
      });
    const arbiter = new EtcdArbiter({ endpoints: [clientUrl], prefix: '/hand', askTimeoutMs });
    for (const value of ['nonsense', '{}', '{"term":7,"owner":"left","peer":null}']) {
      await write(value);
      await assert.rejects(arbiter.read('guest'), isUnreachable);
      await assert.rejects(arbiter.claim('guest', 7, { owner: 'right', peer: null }), isUnreachable);
    }
    await arbiter.close();
  });
});

describe('three members with mutual TLS', () => {
  let etcd: Etcd;
  before(async () => {
    etcd = await startEtcd(['one', 'two', 'three'], true);
  });
  after(() => etcd.end());

  const open = async (identityFolder?: string, timeoutMs = askTimeoutMs) =>
    new EtcdArbiter({
      askTimeoutMs: timeoutMs,
      endpoints: etcd.members.map((member) => member.clientUrl),
      identity: readIdentity(
        identityFolder ?? (await issueCertificate(join(etcd.folder, 'ca'), { node: 'colo', addresses: [] })),
      ),
    });

  test('a node with a certificate of another authority gets no answer', async () => {
    const other = join(etcd.folder, 'other');
    await createAuthority(other, 'other');
    const folder = await issueCertificate(other, { node: 'colo', addresses: [] });
    const arbiter = await open(folder, 3000);
    await assert.rejects(arbiter.read('guest'), isUnreachable);
    await arbiter.close();
  });

  test("a person's certificate of the same authority gets no answer, whatever its role: the records are for nodes", async () => {
    const admin = await issueCertificate(join(etcd.folder, 'ca'), { node: 'anna', addresses: [], role: 'admin' });
    const endpoints = etcd.members.map((one) => one.clientUrl);
    const asAdmin = new EtcdArbiter({ endpoints, identity: readIdentity(admin), askTimeoutMs: 3000 });
    await assert.rejects(asAdmin.read('guest'), isUnreachable);
    await assert.rejects(asAdmin.claim('guest', 0, { owner: 'anna', peer: null }), isUnreachable);
    await asAdmin.close();
  });

  test('one member dead: claims go on; two dead: nobody may change the term, and nobody is told that he did', async () => {
    const arbiter = await open();
    const [one, two] = etcd.members;
    assert.ok(one !== undefined && two !== undefined);
    assert.ok((await arbiter.claim('guest', 0, { owner: 'left', peer: 'right' })).won);
    await one.stop();
    assert.equal((await arbiter.read('guest'))?.term, 1);
    assert.ok((await arbiter.claim('guest', 1, { owner: 'right', peer: null })).won);
    await two.stop();
    const impatient = await open(undefined, 3000);
    await assert.rejects(impatient.claim('guest', 2, { owner: 'right', peer: 'left' }), isUnreachable);
    await assert.rejects(impatient.read('guest'), isUnreachable);
    for (const each of [arbiter, impatient]) await each.close();
  });
});

test('a full etcd answers reads and takes no claim: the probe says so before anybody needs one, and nothing flaps', async () => {
  const etcd = await startEtcd(['full'], false, { quotaBytes: 4 * 2 ** 20 });
  const endpoints = etcd.members.map((one) => one.clientUrl);
  const client = new EtcdClient({ endpoints, askTimeoutMs });
  const said: (string | undefined)[] = [];
  const watched = new WatchedArbiter(new EtcdArbiter({ endpoints, askTimeoutMs }), {
    ...{ vm: 'guest', clock: systemClock },
    changed: (problem) => said.push(problem?.why),
  });
  try {
    await watched.claim('guest', 0, { owner: 'left', peer: 'right' });
    await watched.probe('guest');
    const value = Buffer.alloc(2 ** 19, 1).toString('base64');
    const fill = (index: number) => client.ask('/v3/kv/put', { key: toBase64(`x${index}`), value }, z.object({}));
    const filling = Array.from({ length: 40 }, (_, index) => index).reduce(
      (before, index) => before.then(() => fill(index)),
      Promise.resolve({}),
    );
    await assert.rejects(filling, /space exceeded/);
    await assert.rejects(watched.probe('guest'), /space exceeded/);
    assert.match(watched.problem?.why ?? '', /space exceeded/);
    assert.deepEqual(await watched.read('guest'), { term: 1, owner: 'left', peer: 'right' });
    await assert.rejects(watched.claim('guest', 1, { owner: 'right', peer: null }), /space exceeded/);
    assert.deepEqual(await watched.read('guest'), { term: 1, owner: 'left', peer: 'right' });
    assert.equal(said.length, 1);
  } finally {
    await Promise.all([watched.close(), client.close()]);
    await etcd.end();
  }
});
