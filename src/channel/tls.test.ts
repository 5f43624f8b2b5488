// The link over TCP: mutual TLS 1.3, and who is turned away. Certificates are those that `colo init` and `colo join`
// make.

import assert from 'node:assert/strict';
import { copyFileSync, mkdtempSync, rmSync } from 'node:fs';
import { createConnection } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, type TestContext, test } from 'node:test';
import { connect as connectTls } from 'node:tls';
import { ColoError, errorCodes } from '../base/errors.ts';
import { type Identity, type IdentitySource, identitySource, readIdentity } from '../base/identity.ts';
import { type Role, roles } from '../base/roles.ts';
import { createAuthority, issueCertificate, renewCertificate, revokeCertificates } from '../host/certificates.ts';
import { linkDoorLimits } from './limits.ts';
import { type Address, connect, type Hello } from './link.ts';
import { LinkServer } from './link-server.ts';

const folder = mkdtempSync(join(tmpdir(), 'colo-tls-'));
const identities = new Map<string, Identity>();

function identity(name: string): Identity {
  const found = identities.get(name);
  assert.ok(found !== undefined, name);
  return found;
}

before(async () => {
  const own = join(folder, 'own');
  const other = join(folder, 'other');
  await createAuthority(own, 'own');
  await createAuthority(other, 'other');
  const issue = async (name: string, authority: string, node: string, more: { days?: number; role?: Role } = {}) => {
    const made = await issueCertificate(authority, { node, addresses: [], ...more });
    identities.set(name, readIdentity(made));
  };
  await issue('left', own, 'left');
  await issue('right', own, 'right');
  await issue('expired', own, 'left', { days: -1 });
  // Issued behind those of the node of the same name, whose folder it takes.
  for (const role of roles) await issue(role, own, 'left', { role });
  await issue('foreign', other, 'left');
  // It trusts the cluster, which does not trust it.
  identities.set('foreign', { ...identity('foreign'), ca: identity('left').ca });
});
after(() => rmSync(folder, { recursive: true }));

const hello: Hello = { vm: 'guest', node: 'left', kind: 'beat', term: 1, session: 'one' };

/** A server named `right` that echoes. */
async function listen(
  context: TestContext,
  shows: string,
  source: IdentitySource = identity(shows),
): Promise<{ server: LinkServer; refusals: (count: number) => Promise<string> }> {
  const said: string[] = [];
  let told = Promise.withResolvers<void>();
  const server = await LinkServer.listen(
    { host: '127.0.0.1', port: 0 },
    {
      identity: source,
      accept: () => undefined,
      local: (peer) => ({ ...peer, node: 'right' }),
      handshakeTimeoutMs: 60_000,
      link: (link) => link.start({ message: (type, payload) => link.send(type, payload), closed: () => undefined }),
      refused: (_, text) => {
        said.push(text);
        told.resolve();
        told = Promise.withResolvers<void>();
      },
    },
  );
  context.after(() => server.close());
  const refusals = async (count: number): Promise<string> => {
    while (said.length < count) await told.promise;
    return said.join('\n');
  };
  return { server, refusals };
}

const dial = (address: Address, shows: string, more: { peerNode?: string; node?: string } = {}) =>
  connect(
    address,
    { ...hello, node: more.node ?? 'left' },
    {
      timeoutMs: 60_000,
      identity: identity(shows),
      ...(more.peerNode === undefined ? {} : { peerNode: more.peerNode }),
    },
  );

const isRefused = (error: unknown) => error instanceof ColoError && error.code === errorCodes.channel;

test('two nodes of one cluster talk', async (context) => {
  const { server } = await listen(context, 'right');
  const link = await dial(server.address, 'left', { peerNode: 'right' });
  const { promise, resolve } = Promise.withResolvers<string>();
  link.start({ message: (_, payload) => resolve(payload.toString()), closed: () => undefined });
  link.send(5, Buffer.from('echo'));
  assert.equal(await promise, 'echo');
  link.close();
});

for (const shows of ['foreign', 'expired'])
  test(`a node whose certificate is ${shows} gets no link, and is counted`, async (context) => {
    const { server, refusals } = await listen(context, 'right');
    await assert.rejects(dial(server.address, shows), isRefused);
    assert.match(await refusals(1), /did not prove who it is/);
    assert.equal(server.counters.accepted, 0);
    assert.equal(server.counters.refused.identity, 1);
  });

for (const shows of ['foreign', 'expired'])
  test(`a server whose certificate is ${shows} is not talked to`, async (context) => {
    const { server } = await listen(context, shows);
    await assert.rejects(dial(server.address, 'left'), isRefused);
    assert.equal(server.counters.accepted, 0);
  });

test("a node that gives another node's name is refused, and so is a server that does", async (context) => {
  const { server } = await listen(context, 'right');
  await assert.rejects(dial(server.address, 'left', { node: 'right' }), /says that it is right, and is left/);
  assert.equal(server.counters.refused.identity, 1);
  const liar = await listen(context, 'left');
  await assert.rejects(dial(liar.server.address, 'left'), /says that it is right, and is left/);
});

test('a certificate of a person opens no link, whatever its role', async (context) => {
  const { server, refusals } = await listen(context, 'right');
  for (const [index, role] of roles.entries()) {
    await assert.rejects(dial(server.address, role), isRefused);
    assert.match(await refusals(index + 1), /did not prove who it is/);
  }
  const impostor = await listen(context, 'admin');
  await assert.rejects(dial(impostor.server.address, 'left', { peerNode: 'right' }));
});

test('a certificate that was revoked opens no link, and a renewed one does, from the next connection on and without a restart', async (context) => {
  const authority = join(folder, 'revoking');
  await createAuthority(authority, 'revoking');
  const at: Record<string, string> = {};
  for (const node of ['left', 'right', 'other'])
    at[node] = await issueCertificate(authority, { node, addresses: ['127.0.0.1'] });
  const read = (node: string) => readIdentity(at[node] ?? '');
  const stolen = read('left');
  identities.set('revoking', read('right'));
  const { server, refusals } = await listen(context, 'revoking', identitySource(at['right'] ?? ''));
  const open = (as: Identity) => connect(server.address, hello, { timeoutMs: 60_000, identity: as, peerNode: 'right' });
  const before = await open(stolen);
  await renewCertificate(authority, 'left');
  assert.equal(await revokeCertificates(authority, 'left', { keepNewest: true }), 1);
  (await open(stolen)).close();
  copyFileSync(join(authority, 'revoked.pem'), join(at['right'] ?? '', 'revoked.pem'));
  await assert.rejects(open(stolen), isRefused);
  assert.match(await refusals(1), /did not prove who it is/);
  (await open(read('left'))).close();
  assert.equal(before.ended, false, 'what is connected stays');
  before.close();
  // The other way round: a server whose certificate is revoked is not talked to.
  const renewed = await renewCertificate(authority, 'right');
  const old = identities.get('revoking');
  assert.ok(old !== undefined);
  await revokeCertificates(authority, 'right', { keepNewest: true });
  const impostor = await listen(context, 'revoking', old);
  copyFileSync(join(authority, 'revoked.pem'), join(at['left'] ?? '', 'revoked.pem'));
  const meant = { timeoutMs: 60_000, identity: read('left'), peerNode: 'right' };
  await assert.rejects(connect(impostor.server.address, hello, meant), isRefused);
  const newer = await listen(context, 'revoking', readIdentity(renewed));
  (await connect(newer.server.address, hello, meant)).close();
  assert.equal(await revokeCertificates(authority, 'left', { keepNewest: false }), 2);
  copyFileSync(join(authority, 'revoked.pem'), join(at['right'] ?? '', 'revoked.pem'));
  await assert.rejects(open(read('left')), isRefused);
  await assert.rejects(open(read('other')), /says that it is left, and is other/, 'the others are not revoked');
});

test('a node that is not the one that was meant is not talked to', async (context) => {
  const { server } = await listen(context, 'right');
  await assert.rejects(dial(server.address, 'left', { peerNode: 'third' }), /says that it is right, and is third/);
});

test('without a certificate, with an older TLS, or with no TLS at all nobody gets in', async (context) => {
  const { server, refusals } = await listen(context, 'right');
  const { port } = server.address as { port: number };
  const { ca, certificate: cert, key } = identity('left');
  const attempts = [
    () => connectTls({ port, host: '127.0.0.1', ca, checkServerIdentity: () => undefined }),
    () => connectTls({ port, host: '127.0.0.1', ca, cert, key, maxVersion: 'TLSv1.2' }),
    () => createConnection({ port, host: '127.0.0.1' }),
  ];
  for (const attempt of attempts) {
    const socket = attempt();
    socket.on('error', () => undefined);
    socket.resume();
    socket.write('GET / HTTP/1.1\r\n\r\n');
    await new Promise((resolve) => void socket.once('close', resolve));
  }
  await refusals(attempts.length);
  assert.equal(server.counters.accepted, 0);
  assert.equal(server.counters.refused.identity, attempts.length);
});

test('strangers that knock as fast as they can cost a bounded number of handshakes, and a peer is let in meanwhile', async (context) => {
  const { server } = await listen(context, 'right');
  const { port } = server.address as { port: number };
  (await dial(server.address, 'left')).destroy();
  const { ca } = identity('left');
  const knocks = 600;
  const knock = (index: number) => {
    const options = { port, host: '127.0.0.1', localAddress: `127.0.2.${index % 200}` };
    const socket = connectTls({ ...options, ca, checkServerIdentity: () => undefined });
    socket.on('error', () => undefined);
    socket.resume();
    return new Promise((resolve) => void socket.once('close', resolve));
  };
  const begun = performance.now();
  const all = Array.from({ length: knocks }, (_, index) => knock(index));
  const link = await dial(server.address, 'left', { peerNode: 'right' });
  await Promise.all(all);
  const seconds = (performance.now() - begun) / 1000;
  const { refused, rate, busy, accepted } = server.counters;
  const { strangersBurst, strangersPerSecond } = linkDoorLimits;
  const begunMax = strangersBurst + Math.ceil(seconds * strangersPerSecond);
  const handshakes = refused.identity ?? 0;
  assert.ok(handshakes > 0 && handshakes <= begunMax, `${handshakes} handshakes, at most ${begunMax}`);
  assert.equal(handshakes + rate + busy, knocks);
  assert.equal(accepted, 2);
  link.destroy();
});

test('TCP without certificates is refused before anything is sent', async () => {
  const nowhere = { host: '127.0.0.1', port: 1 };
  const isInput = (error: unknown) => error instanceof ColoError && error.code === errorCodes.input;
  await assert.rejects(connect(nowhere, hello, { timeoutMs: 1_000 }), isInput);
});
