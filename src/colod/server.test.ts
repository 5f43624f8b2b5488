// The service's API over real sockets: who is refused and how that is counted, bounds, live updates, and that the
// OpenAPI document says what is served. Behind it stands a cluster that only this test knows.

import assert from 'node:assert/strict';
import { EventEmitter } from 'node:events';
import {
  appendFileSync,
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { createConnection } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, type TestContext, test } from 'node:test';
import { connect as connectTls } from 'node:tls';
import { pino } from 'pino';
import type { Cluster } from '../api/cluster.ts';
import { callService, type ServiceRequest, streamService, type Target } from '../api/cluster-client.ts';
import { bodyBytesMax, streamsMax } from '../api/limits.ts';
import { jsonSchema, openApiDocument } from '../api/openapi.ts';
import { routes } from '../api/routes.ts';
import { type Clock, systemClock } from '../base/clock.ts';
import { ColoError, errorCodes } from '../base/errors.ts';
import { type Identity, type IdentitySource, identitySource, readIdentity } from '../base/identity.ts';
import { type Log, silentLog } from '../base/log.ts';
import { type CertificateRole, mayDo, roles } from '../base/roles.ts';
import { specSchema } from '../config/spec.ts';
import { createAuthority, issueCertificate, revokeCertificates } from '../host/certificates.ts';
import { tokenHash } from './authentication.ts';
import { callDoorLimits } from './limits.ts';
import { type Handlers, type RefusedReason, ServiceServer } from './server.ts';

const folder = mkdtempSync(join(tmpdir(), 'colo-service-'));
const identities = new Map<string, Identity>();
const tokensPath = join(folder, 'tokens');

before(async () => {
  const issue = async (name: string, authority: string, node: string, days?: number) => {
    const made = await issueCertificate(join(folder, authority), {
      ...{ node, addresses: ['127.0.0.1'] },
      ...(days === undefined ? {} : { days }),
    });
    identities.set(name, readIdentity(made));
  };
  await createAuthority(join(folder, 'own'), 'own');
  await createAuthority(join(folder, 'other'), 'other');
  await issue('h1', 'own', 'h1');
  await issue('h2', 'own', 'h2');
  await issue('expired', 'own', 'late', -1);
  await issue('foreign', 'other', 'h2');
  for (const role of roles)
    identities.set(
      role,
      readIdentity(await issueCertificate(join(folder, 'own'), { node: `${role}-1`, addresses: [], role })),
    );
  writeFileSync(tokensPath, `# operators\nanna:${tokenHash('secret')}\n`, { mode: 0o600 });
});
after(() => rmSync(folder, { recursive: true }));

const identity = (name: string): Identity => identities.get(name) ?? assert.fail(name);

function emptyCluster(): Cluster {
  return { answeredBy: 'h1', registry: { reached: true, problems: [] }, nodes: [], vms: [] };
}

interface Stage {
  server: ServiceServer;
  socketPath: string;
  cluster: { now: Cluster };
  events: EventEmitter;
  calls: string[];
  as: (who: Identity | { token: string }) => Target;
}

async function listen(
  context: TestContext,
  {
    log = silentLog,
    clock = systemClock,
    own = identity('h1'),
  }: { log?: Log; clock?: Clock; own?: IdentitySource } = {},
): Promise<Stage> {
  const socketPath = join(mkdtempSync(join(folder, 'run-')), 'colod.sock');
  const cluster = { now: emptyCluster() };
  const events = new EventEmitter().setMaxListeners(0);
  const calls: string[] = [];
  const handlers = new Proxy({} as Handlers, {
    get: (_, id: string) => async (call: { params: Record<string, string>; body: unknown; query: unknown }) => {
      calls.push(`${id} ${JSON.stringify(call.params)}`);
      if (id === 'openapi') return openApiDocument({ version: '1', spec: {} });
      if (id === 'failover') throw new ColoError(errorCodes.input, 'not protected', { hint: 'wait' });
      if (id === 'checkpoint') throw new TypeError('a bug');
      return id === 'cluster' ? cluster.now : { ...call };
    },
  });
  const secure = { host: '127.0.0.1', port: 0, identity: own, tokens: tokensPath };
  const server = await ServiceServer.listen({ socketPath, secure, handlers, events, log, clock });
  context.after(() => server.close());
  const as = (who: Identity | { token: string }): Target => ({
    ...{ host: '127.0.0.1', port: server.port, ca: identity('h1').ca, as: who },
  });
  return { server, socketPath, cluster, events, calls, as };
}

const ask: ServiceRequest = { method: 'GET', path: '/v1/cluster' };
const says = (text: RegExp) => (error: unknown) => error instanceof ColoError && text.test(error.message);

test('a node with a certificate of the cluster, an operator with a token, and root on the socket are answered', async (context) => {
  const { as, socketPath, server } = await listen(context);
  assert.deepEqual(await callService(as(identity('h2')), ask), emptyCluster());
  assert.deepEqual(await callService(as({ token: 'secret' }), ask), emptyCluster());
  assert.deepEqual(await callService({ socketPath }, ask), emptyCluster());
  assert.equal(statSync(socketPath).mode & 0o777, 0o600);
  assert.deepEqual(server.refused, {});
});

test('a certificate of another authority, an expired one, a wrong token and nothing at all are refused and counted', async (context) => {
  const { as, server, calls } = await listen(context);
  const foreign = { ...identity('foreign'), ca: identity('h1').ca };
  await assert.rejects(callService(as(foreign), ask), says(/certificate is not accepted/));
  await assert.rejects(callService(as(identity('expired')), ask), says(/certificate is not accepted.*EXPIRED/));
  await assert.rejects(callService(as({ token: 'guess' }), ask), says(/token is not known/));
  const nobody = { ...as({ token: '' }) };
  await assert.rejects(callService(nobody, ask), says(/neither a certificate/));
  assert.deepEqual(server.refused, { certificate: 2, token: 1, missing: 1 });
  assert.deepEqual(calls, [], 'nothing was done for any of them');
});

test('a token that was taken away counts no longer; a token file that is not there, or that others can read, gives nobody anything', async (context) => {
  const { as } = await listen(context);
  appendFileSync(tokensPath, `bert:${tokenHash('other')}\n`);
  await callService(as({ token: 'other' }), ask);
  writeFileSync(tokensPath, `anna:${tokenHash('secret')}\n`);
  await assert.rejects(callService(as({ token: 'other' }), ask), says(/token is not known/));
  chmodSync(tokensPath, 0o644);
  await assert.rejects(callService(as({ token: 'secret' }), ask), says(/no token can be checked/));
  chmodSync(tokensPath, 0o600);
  renameSync(tokensPath, `${tokensPath}.away`);
  await assert.rejects(callService(as({ token: 'secret' }), ask), says(/no token can be checked/));
  renameSync(`${tokensPath}.away`, tokensPath);
  await callService(as({ token: 'secret' }), ask);
});

test('of every route, who may call it is what its table says: viewers, operators, admins, nodes and local root', async (context) => {
  const { as, socketPath, calls } = await listen(context);
  const params = { '{vm}': 'web', '{node}': 'h1' };
  appendFileSync(tokensPath, roles.map((role) => `${role}:${tokenHash(`of-${role}`)}:${role}\n`).join(''));
  const callers: [is: CertificateRole, target: Target][] = [
    ['node', { socketPath }],
    ['node', as(identity('h2'))],
    ...roles.map((role): [CertificateRole, Target] => [role, as(identity(role))]),
    ...roles.map((role): [CertificateRole, Target] => [role, as({ token: `of-${role}` })]),
    // A token of before there were roles.
    ['operator', as({ token: 'secret' })],
  ];
  for (const [is, target] of callers)
    for (const { id, method, path, needs, ...route } of routes.filter((one) => one.id !== 'events')) {
      const filled = Object.entries(params).reduce((text, [name, value]) => text.replace(name, value), String(path));
      const body = 'body' in route ? { body: { spec: {} } } : {};
      calls.length = 0;
      const refused = await callService(target, { method, path: filled, ...body }).then(
        () => '',
        (error: unknown) => (error instanceof ColoError ? error.message : assert.fail(String(error))),
      );
      const isRefused = / needs the role | is for nodes /.test(refused);
      assert.equal(isRefused, !mayDo(is, needs), `${is} ${id}: ${refused}`);
      assert.equal(calls.length, isRefused ? 0 : 1, `${is} ${id}: ${refused}`);
    }
  const reads = routes.filter(({ method, needs }) => method === 'GET' && needs !== 'node').map(({ id }) => id);
  const viewed = routes.filter(({ needs }) => needs === 'viewer');
  assert.ok(
    viewed.every(({ id, method }) => method === 'GET' && reads.includes(id)),
    'a viewer changes nothing',
  );
  const document = openApiDocument({ version: '1', spec: {} });
  const paths = document['paths'] as Record<string, Record<string, { 'x-colo-role': string }>>;
  for (const { path, method, needs } of routes)
    assert.equal(paths[path]?.[method.toLowerCase()]?.['x-colo-role'], needs);
});

test('a node is only who the authority of the nodes says it is: that of people cannot make one', async (context) => {
  const { as, calls } = await listen(context);
  const people = join(folder, 'own');
  const forged = join(folder, 'forged');
  mkdirSync(forged);
  for (const [from, to] of [
    ['people.pem', 'ca.pem'],
    ['people.key', 'ca.key'],
  ] as const)
    copyFileSync(join(people, from), join(forged, to));
  const made = readIdentity(await issueCertificate(forged, { node: 'h2', addresses: [] }));
  const asNode = as({ ...made, ca: identity('h1').ca });
  await assert.rejects(callService(asNode, { method: 'GET', path: '/v1/local' }), says(/no role that is known/));
  assert.deepEqual(calls, []);
});

test('a certificate that was revoked is refused at the API from the next call on, also on a connection that stands', async (context) => {
  const authority = join(folder, 'revoking');
  await createAuthority(authority, 'revoking');
  const node = await issueCertificate(authority, { node: 'h1', addresses: ['127.0.0.1'] });
  const anna = readIdentity(await issueCertificate(authority, { node: 'anna', addresses: [], role: 'admin' }));
  const bert = readIdentity(await issueCertificate(authority, { node: 'bert', addresses: [], role: 'viewer' }));
  const ticks: (() => void)[] = [];
  const clock = { ...systemClock, every: (_: number, tick: () => void) => (ticks.push(tick), () => undefined) };
  const { server } = await listen(context, { clock, own: identitySource(node) });
  const as = (who: Identity): Target => ({ host: '127.0.0.1', port: server.port, ca: who.ca, as: who });
  const stream = streamService(as(anna), '/v1/events', new AbortController().signal);
  assert.equal((await stream.next()).done, false);
  await revokeCertificates(authority, 'anna', { keepNewest: false });
  await callService(as(anna), ask);
  copyFileSync(join(authority, 'revoked.pem'), join(node, 'revoked.pem'));
  for (const tick of ticks) tick();
  await assert.rejects(stream.next());
  await assert.rejects(callService(as(anna), ask), says(/certificate is not accepted.*REVOKED/));
  assert.deepEqual(await callService(as(bert), ask), emptyCluster());
  assert.deepEqual(server.refused, { certificate: 1 });
});

test('one who reads events and whose token is taken away reads no more', async (context) => {
  const ticks: (() => void)[] = [];
  const clock = { ...systemClock, every: (_: number, tick: () => void) => (ticks.push(tick), () => undefined) };
  const { as } = await listen(context, { clock });
  appendFileSync(tokensPath, `carl:${tokenHash('of-carl')}:viewer\n`);
  const stream = streamService(as({ token: 'of-carl' }), '/v1/events', new AbortController().signal);
  assert.equal((await stream.next()).done, false);
  writeFileSync(tokensPath, `anna:${tokenHash('secret')}\n`);
  for (const tick of ticks) tick();
  await assert.rejects(stream.next());
});

test('what is for nodes is not for tokens', async (context) => {
  const { as, server } = await listen(context);
  await assert.rejects(callService(as({ token: 'secret' }), { method: 'GET', path: '/v1/local' }), says(/for nodes/));
  await callService(as(identity('h2')), { method: 'GET', path: '/v1/local' });
  assert.deepEqual(server.refused, { forbidden: 1 });
});

test('a server of another authority, or another node than the one that is meant, is not talked to', async (context) => {
  const { server, calls } = await listen(context);
  const place = { host: '127.0.0.1', port: server.port };
  const h2 = identity('h2');
  await assert.rejects(callService({ ...place, ca: identity('foreign').ca, as: h2 }, ask), says(/does not answer/));
  await assert.rejects(callService({ ...place, ca: h2.ca, node: 'h3', as: h2 }, ask), says(/does not answer/));
  await callService({ ...place, ca: h2.ca, node: 'h1', as: h2 }, ask);
  assert.equal(calls.length, 1);
});

test('older TLS, no TLS and garbage get no answer, and the others are served on', async (context) => {
  const { server, as } = await listen(context);
  const { ca } = identity('h1');
  const attempts = [
    () => connectTls({ port: server.port, host: '127.0.0.1', ca, maxVersion: 'TLSv1.2' }),
    () => createConnection({ port: server.port, host: '127.0.0.1' }),
  ];
  for (const attempt of attempts) {
    const socket = attempt();
    let said = '';
    socket.on('error', () => undefined);
    socket.on('data', (bytes) => {
      said += bytes.toString('latin1');
    });
    socket.write('GET /v1/cluster HTTP/1.1\r\nHost: h1\r\n\r\n');
    await new Promise((resolve) => void socket.once('close', resolve));
    assert.ok(!said.includes('HTTP/1.1 200'));
  }
  await callService(as(identity('h2')), ask);
  assert.equal(server.refused.tls, attempts.length);
});

test('strangers that knock as fast as they can are counted and logged together, and the others are served on', async (context) => {
  const lines: { reason: string; count: number }[] = [];
  const log = pino({ level: 'warn' }, { write: (line: string) => void lines.push(JSON.parse(line)) });
  const { server, as } = await listen(context, { log });
  await callService(as(identity('h2')), ask);
  const knocks = 2 * callDoorLimits.strangersBurst;
  const knock = (index: number) => {
    const options = { port: server.port, host: '127.0.0.1', localAddress: `127.0.3.${index % 200}` };
    const socket = createConnection(options);
    socket.on('error', () => undefined);
    socket.resume();
    socket.end('no TLS');
    return new Promise((resolve) => void socket.once('close', resolve));
  };
  const all = Array.from({ length: knocks }, (_, index) => knock(index));
  await callService(as(identity('h2')), ask);
  await Promise.all(all);
  await server.close();
  const { tls = 0, rate = 0, busy = 0 } = server.refused;
  assert.equal(tls + rate + busy, knocks);
  assert.ok(rate + busy > 0);
  assert.ok(lines.length <= 6, `${lines.length} lines`);
  assert.equal(
    lines.reduce((sum, { count }) => sum + count, 0),
    knocks,
  );
});

test('bodies that are too large, that are none, and routes that are none are refused and counted', async (context) => {
  const { as, server, calls } = await listen(context);
  const call = (request: ServiceRequest) => callService(as(identity('h2')), request);
  const large = { spec: { vm: 'x'.repeat(bodyBytesMax) } };
  await assert.rejects(call({ method: 'POST', path: '/v1/vms', body: large }), says(/a body has at most/));
  await assert.rejects(call({ method: 'POST', path: '/v1/vms', body: { spec: 'text' } }), says(/^spec: /));
  await assert.rejects(call({ method: 'POST', path: '/v1/vms' }), says(/\(body\)/));
  await assert.rejects(call({ method: 'POST', path: '/v1/vms', body: { spec: {}, extra: 1 } }), says(/extra/));
  await assert.rejects(call({ method: 'GET', path: '/v1/vms/web/logs?lines=0' }), says(/^lines: /));
  await assert.rejects(call({ method: 'GET', path: '/v2/cluster' }), says(/there is no GET \/v2\/cluster/));
  await assert.rejects(call({ method: 'DELETE', path: '/v1/cluster' }), says(/there is no DELETE/));
  await assert.rejects(call({ method: 'GET', path: '//' }), says(/there is no GET \/\//));
  assert.deepEqual(server.refused, { size: 1, body: 4, route: 3 } satisfies Partial<Record<RefusedReason, number>>);
  assert.deepEqual(calls, []);
});

test('a refusal of a node keeps its words, and a bug of ours is an error of one call, not the end of the service', async (context) => {
  const { as } = await listen(context);
  const h2 = as(identity('h2'));
  await assert.rejects(callService(h2, { method: 'POST', path: '/v1/vms/web/failover' }), (error: unknown) => {
    return error instanceof ColoError && error.message === 'not protected' && error.hint === 'wait';
  });
  await assert.rejects(callService(h2, { method: 'POST', path: '/v1/vms/web/checkpoint' }), says(/a bug/));
  await callService(h2, ask);
});

test('live updates: the state at once, again when it changed, and not when it did not', async (context) => {
  const { as, cluster, events } = await listen(context);
  const end = new AbortController();
  const seen: string[] = [];
  const stream = streamService(as(identity('h2')), '/v1/events', end.signal);
  const next = async () => {
    const { value } = await stream.next();
    seen.push((value as Cluster).answeredBy);
  };
  await next();
  events.emit('changed');
  cluster.now = { ...emptyCluster(), answeredBy: 'changed' };
  events.emit('changed');
  await next();
  assert.deepEqual(seen, ['h1', 'changed']);
  end.abort();
  await assert.rejects(stream.next());
  for (let tries = 0; events.listenerCount('changed') > 0; tries += 1) {
    assert.ok(tries < 10_000, 'the stream is still held');
    await new Promise(setImmediate);
  }
});

test('only so many may listen to live updates', async (context) => {
  const { socketPath, server } = await listen(context);
  const end = new AbortController();
  const open = () => streamService({ socketPath }, '/v1/events', end.signal);
  const streams = Array.from({ length: streamsMax }, open);
  await Promise.all(streams.map((one) => one.next()));
  await assert.rejects(open().next(), says(/readers of events already/));
  assert.equal(server.refused.busy, 1);
  end.abort();
});

test('a port that another service holds is one error that names it, and what had begun is closed again', async (context) => {
  const { server, as } = await listen(context);
  const folderOfSecond = mkdtempSync(join(folder, 'run-'));
  const secure = { host: '127.0.0.1', port: server.port, identity: identity('h2'), tokens: tokensPath };
  const options = { socketPath: join(folderOfSecond, 'colod.sock'), secure, handlers: {} as Handlers };
  await assert.rejects(ServiceServer.listen({ ...options, events: new EventEmitter(), log: silentLog }), {
    code: 'COLO_E_HOST',
    message: `cannot listen at 127.0.0.1:${server.port}`,
    hint: /another colod may run on this host/,
  });
  assert.deepEqual(readdirSync(folderOfSecond), []);
  assert.deepEqual(await callService(as(identity('h2')), ask), emptyCluster());
});

test('the socket is gone with the service', async (context) => {
  const { server, socketPath } = await listen(context);
  await server.close();
  assert.equal(existsSync(socketPath), false);
});

test('the OpenAPI document has every route with its parameters, bodies and answers, and its references lead somewhere', () => {
  const document = openApiDocument({ version: '1.2.3', spec: jsonSchema(specSchema, 'input') });
  const text = JSON.stringify(document);
  const paths = document['paths'] as Record<
    string,
    Record<string, { operationId: string; parameters: { name: string }[] }>
  >;
  const ids = Object.values(paths).flatMap((one) => Object.values(one).map((operation) => operation.operationId));
  assert.deepEqual(ids.sort(), routes.map((route) => route.id).sort());
  assert.equal(new Set(ids).size, ids.length);
  for (const route of routes) {
    const operation = paths[route.path]?.[route.method.toLowerCase()];
    const named = operation?.parameters.map((one) => one.name) ?? [];
    for (const [, name = ''] of route.path.matchAll(/\{(\w+)\}/g)) assert.ok(named.includes(name), route.path);
  }
  for (const [, name = ''] of text.matchAll(/"\$ref":"#\/components\/schemas\/(\w+)"/g))
    assert.ok((document['components'] as { schemas: Record<string, unknown> }).schemas[name] !== undefined, name);
  assert.equal([...text.matchAll(/"\$ref":"(?!#\/components\/schemas\/)/g)].length, 0);
  assert.match(text, /"machine":\{/, "a VM's spec is described key by key");
});
