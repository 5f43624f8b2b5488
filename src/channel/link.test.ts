// The link over real sockets: handshake, order, ends of every kind, and peers that are none.

import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createConnection, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { systemClock } from '../base/clock.ts';
import { ColoError, errorCodes } from '../base/errors.ts';
import { seededRandom } from '../base/random.ts';
import { linkTypes } from './frame.ts';
import { encodeHello } from './hello.ts';
import { helloBytesMax, queueBytesMax } from './limits.ts';
import { type Address, connect, type Hello, type Link } from './link.ts';
import { LinkServer, type LinkServerOptions } from './link-server.ts';
import { Outbox } from './outbox.ts';

/** What takes a moment takes longer on a starved host; where a time is to run out, it is short. */
const patientMs = 60_000;
const patientClock = { ...systemClock, after: (_: number, action: () => void) => systemClock.after(patientMs, action) };

const hello: Hello = { vm: 'guest', node: 'left', kind: 'packet', term: 3, session: 'first' };

interface Peer {
  server: LinkServer;
  address: Address;
  /** The next link the server hands out. */
  next(): Promise<Link>;
}

async function listen(context: TestContext, more: Partial<LinkServerOptions> = {}): Promise<Peer> {
  const folder = mkdtempSync(join(tmpdir(), 'colo-link-'));
  const arrived: Link[] = [];
  const waiting: ((link: Link) => void)[] = [];
  const address = { path: join(folder, 'link.sock') };
  const links: Link[] = [];
  const server = await LinkServer.listen(address, {
    accept: (peer) => (peer.vm === 'guest' ? undefined : `this node does not protect ${peer.vm}`),
    local: (peer) => ({ ...peer, node: 'right', term: 4 }),
    handshakeTimeoutMs: patientMs,
    link: (link) => {
      links.push(link);
      const waiter = waiting.shift();
      if (waiter === undefined) arrived.push(link);
      else waiter(link);
    },
    ...more,
  });
  context.after(async () => {
    for (const link of links) link.destroy();
    await server.close();
    rmSync(folder, { recursive: true });
  });
  const next = async (): Promise<Link> =>
    arrived.shift() ?? (await new Promise((resolve) => void waiting.push(resolve)));
  return { server, address, next };
}

async function pair(context: TestContext): Promise<{ client: Link; server: Link }> {
  const peer = await listen(context);
  const client = await connect(peer.address, hello, { timeoutMs: patientMs });
  context.after(() => client.destroy());
  return { client, server: await peer.next() };
}

interface Heard {
  messages: { type: number; text: string }[];
  closed: Promise<ColoError | undefined>;
  /** Resolves when so many messages have arrived. */
  count(count: number): Promise<void>;
}

function hear(link: Link): Heard {
  const messages: { type: number; text: string }[] = [];
  const waiters: { count: number; resolve: () => void }[] = [];
  const closed = new Promise<ColoError | undefined>((resolve) => {
    link.start({
      message: (type, payload) => {
        messages.push({ type, text: payload.toString() });
        for (const waiter of waiters) if (messages.length >= waiter.count) waiter.resolve();
      },
      closed: resolve,
    });
  });
  const count = (wanted: number): Promise<void> =>
    new Promise((resolve) => {
      if (messages.length >= wanted) resolve();
      else waiters.push({ count: wanted, resolve });
    });
  return { messages, closed, count };
}

function isChannelError(text: RegExp): (error: unknown) => boolean {
  return (error) => error instanceof ColoError && error.code === errorCodes.channel && text.test(error.message);
}

test('both sides learn who the peer is, and messages arrive in order both ways', async (context) => {
  const { client, server } = await pair(context);
  assert.deepEqual(client.peer, { ...hello, node: 'right', term: 4 });
  assert.deepEqual(server.peer, hello);
  // Sent before either side reads: they wait.
  server.send(9, Buffer.from('early'));
  const atClient = hear(client);
  const atServer = hear(server);
  for (let index = 0; index < 1000; index += 1) {
    client.send(1, Buffer.from(`${index}`), Buffer.from('!'));
    server.send(2, Buffer.from(`${index}`));
  }
  await Promise.all([atClient.count(1001), atServer.count(1000)]);
  assert.deepEqual(atClient.messages[0], { type: 9, text: 'early' });
  assert.deepEqual(atServer.messages[999], { type: 1, text: '999!' });
  assert.equal(client.counters.messagesSent, 1000);
});

test('close delivers what was queued, and ends both sides without an error', async (context) => {
  const { client, server } = await pair(context);
  const atClient = hear(client);
  const atServer = hear(server);
  const large = Buffer.alloc(3_000_000, 1);
  client.send(1, large);
  client.send(2, Buffer.from('last'));
  client.close('', patientClock);
  assert.equal(await atServer.closed, undefined);
  assert.equal(await atClient.closed, undefined);
  assert.deepEqual(atServer.messages.at(-1), { type: 2, text: 'last' });
});

test('a side that ends a link says why, and the other one knows it in the same words', async (context) => {
  const { client, server } = await pair(context);
  const atServer = hear(server);
  client.start({ message: () => undefined, closed: () => undefined });
  client.close('the disk is full', patientClock);
  assert.equal(await atServer.closed, undefined);
  assert.equal(server.farewell, 'the disk is full');
  assert.equal(client.farewell, '');
});

test('a side that refuses what it was sent says so: the other one does not take it for dead', async (context) => {
  const { client, server } = await pair(context);
  const [atClient, atServer] = [hear(client), hear(server)];
  const socket: Socket = Reflect.get(server, 'socket');
  socket.write(Buffer.from('c010010900000001ffffffff0000000000', 'hex'));
  assert.ok(isChannelError(/the peer sent a message that has number/)(await atClient.closed));
  assert.equal(await atServer.closed, undefined);
  assert.match(server.farewell, /^right sent a message that has number/);
});

/** Stands still until what was written is readable in every socket: the loop finds all of it in one turn. */
function letArrive(): void {
  spawnSync('sleep', ['0.05']);
}

test('the owner of a link that is given up hears of it before the peer can see it, and before anything else is handled', async (context) => {
  const { client, server } = await pair(context);
  // Another source of frames, as the guest's card: what comes of it in between would leave with a right that is over.
  const folder = mkdtempSync(join(tmpdir(), 'colo-card-'));
  const card = createServer().listen(join(folder, 'card.sock'));
  await once(card, 'listening');
  const guest = createConnection(join(folder, 'card.sock'));
  const [other] = (await once(card, 'connection')) as [Socket];
  context.after(() => {
    guest.destroy();
    other.destroy();
    card.close();
    rmSync(folder, { recursive: true });
  });
  const order: string[] = [];
  const framed = new Promise<void>((resolve) => {
    guest.on('data', () => {
      order.push(
        order.includes('told') ? 'a frame afterwards' : client.ended ? 'a frame in between' : 'a frame before',
      );
      resolve();
    });
  });
  client.start({ message: () => undefined, closed: () => void order.push('told') });
  const seen = new Promise<void>((resolve) => {
    server.start({
      message: () => undefined,
      closed: () => {
        order.push('seen by the peer');
        resolve();
      },
    });
  });
  // Everything is polled from here on.
  for (let turn = 0; turn < 3; turn += 1) await new Promise((resolve) => setImmediate(resolve));
  const socket: Socket = Reflect.get(server, 'socket');
  socket.write(Buffer.from('c010010900000001ffffffff0000000000', 'hex'));
  other.write('frame');
  letArrive();
  await Promise.all([framed, seen]);
  assert.ok(!order.includes('a frame in between'), order.join(', '));
  assert.ok(order.indexOf('told') < order.indexOf('seen by the peer'), order.join(', '));
});

test('a peer that vanishes closes the link with an error', async (context) => {
  const { client, server } = await pair(context);
  const heard = hear(server);
  client.destroy();
  assert.ok(isChannelError(/without saying bye/)(await heard.closed));
  server.send(1, Buffer.from('into the void'));
});

test('a killed process closes the link at once', async (context) => {
  const peer = await listen(context);
  const script = `
    const { connect } = await import(${JSON.stringify(new URL('./link.ts', import.meta.url).href)});
    await connect(${JSON.stringify(peer.address)}, ${JSON.stringify(hello)}, { timeoutMs: 60000 });
    setInterval(() => undefined, 1000);`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: 'ignore' });
  context.after(() => child.kill('SIGKILL'));
  const heard = hear(await peer.next());
  child.kill('SIGKILL');
  assert.ok(isChannelError(/lost/)(await heard.closed));
});

test('a handler that destroys its link hears nothing more', async (context) => {
  const { client, server } = await pair(context);
  let heard = 0;
  const closed = new Promise<ColoError | undefined>((resolve) => {
    server.start({
      message: () => {
        heard += 1;
        server.destroy();
      },
      closed: resolve,
    });
  });
  for (let index = 0; index < 10; index += 1) client.send(1, Buffer.from('x'));
  assert.equal(await closed, undefined);
  assert.equal(heard, 1);
});

test('a link that is full says so, and says when it is not any more', async (context) => {
  const { client, server } = await pair(context);
  const drained = new Promise<void>((resolve) => {
    client.start({ message: () => undefined, closed: () => undefined, drained: resolve });
  });
  const batch = Buffer.alloc(1024 * 1024);
  while (!client.congested) client.send(1, batch);
  hear(server);
  await Promise.all([drained, client.drain()]);
  assert.equal(client.congested, false);
  assert.equal(client.queuedBytes, 0);
});

test('a peer that never reads ends the link instead of filling memory', async (context) => {
  const { client } = await pair(context);
  const heard = hear(client);
  const batch = Buffer.alloc(4 * 1024 * 1024);
  for (let queued = 0; queued <= queueBytesMax + batch.length; queued += batch.length) client.send(1, batch);
  assert.ok(isChannelError(/unread/)(await heard.closed));
});

test('each damaged message closes the link with an error and is never heard', async (context) => {
  const peer = await listen(context);
  const outbox = new Outbox();
  outbox.add(linkTypes.hello, [encodeHello(hello)]);
  const opening = Buffer.concat(outbox.take());
  outbox.add(7, [Buffer.from('payload')]);
  const frame = Buffer.concat(outbox.take());
  for (let at = 0; at < frame.length; at += 1) {
    const damaged = Buffer.from(frame);
    damaged[at] = (damaged[at] ?? 0) ^ 0x01;
    const heard = await sendRaw(peer, opening, damaged);
    assert.ok(isChannelError(/lost/)(await heard.closed), `byte ${at}`);
    assert.deepEqual(heard.messages, []);
  }
  for (let length = 0; length < frame.length; length += 1) {
    const heard = await sendRaw(peer, opening, frame.subarray(0, length));
    assert.ok(isChannelError(/ended/)(await heard.closed), `cut at ${length}`);
    assert.deepEqual(heard.messages, []);
  }
});

/** Shakes hands by hand, then sends the bytes and ends. */
async function sendRaw(peer: Peer, opening: Buffer, bytes: Buffer): Promise<Heard> {
  const socket = createConnection(peer.address as { path: string });
  socket.write(opening);
  await once(socket, 'data');
  socket.on('error', () => undefined);
  const heard = hear(await peer.next());
  socket.end(bytes);
  return heard;
}

test('peers that are none are refused, counted, and never become a link', async (context) => {
  const refused: string[] = [];
  const peer = await listen(context, { refused: (_, text) => void refused.push(text) });
  const frame = (type: number, payload: Uint8Array): Buffer => {
    const outbox = new Outbox();
    outbox.add(type, [payload]);
    return Buffer.concat(outbox.take());
  };
  const versions = Buffer.from(JSON.stringify({ ...hello, versions: { min: 3, max: 9 } }));
  const cases: [string, Buffer][] = [
    ['magic', Buffer.from('GET / HTTP/1.1\r\nHost: colo\r\n\r\n')],
    ['length', frame(linkTypes.hello, Buffer.alloc(helloBytesMax + 1))],
    ['hello', frame(linkTypes.hello, Buffer.from('{"vm": 1}'))],
    ['hello', frame(linkTypes.hello, Buffer.from('not json'))],
    ['hello', frame(1, encodeHello(hello))],
    ['hello', Buffer.concat([frame(linkTypes.hello, encodeHello(hello)), Buffer.from('more')])],
    ['version', frame(linkTypes.hello, versions)],
    ['end', Buffer.from([0xc0, 0x10])],
  ];
  for (const [kind, bytes] of cases) {
    const before = refused.length;
    const socket = createConnection(peer.address as { path: string });
    socket.on('error', () => undefined);
    socket.resume();
    socket.end(bytes);
    await once(socket, 'close');
    assert.equal(refused.length, before + 1, kind);
    assert.ok((peer.server.counters.refused[kind as 'magic'] ?? 0) > 0, kind);
  }
  assert.equal(peer.server.counters.accepted, 0);
});

test('seeded garbage never throws and never becomes a link', async (context) => {
  const peer = await listen(context);
  const random = seededRandom(7);
  for (let round = 0; round < 50; round += 1) {
    const bytes = Buffer.from(Array.from({ length: 1 + Math.floor(random() * 200) }, () => Math.floor(random() * 256)));
    if (round % 2 === 0) bytes.writeUInt16BE(0xc010, 0);
    const socket = createConnection(peer.address as { path: string });
    socket.on('error', () => undefined);
    socket.resume();
    socket.end(bytes);
    await once(socket, 'close');
  }
  assert.equal(peer.server.counters.accepted, 0);
});

test('a peer that says nothing is refused when its time is over', async (context) => {
  const peer = await listen(context, { handshakeTimeoutMs: 20 });
  const socket = createConnection(peer.address as { path: string });
  socket.resume();
  await once(socket, 'close');
  assert.equal(peer.server.counters.refused.timeout, 1);
});

test('a refused node learns why', async (context) => {
  const peer = await listen(context);
  const wrong = connect(peer.address, { ...hello, vm: 'other' }, { timeoutMs: patientMs });
  await assert.rejects(wrong, isChannelError(/does not protect other/));
  assert.equal(peer.server.counters.unwanted, 1);
});

test('connect gives up when nobody listens, when nobody answers, and when it is told to', async (context) => {
  const folder = mkdtempSync(join(tmpdir(), 'colo-link-'));
  const path = join(folder, 'silent.sock');
  await assert.rejects(connect({ path }, hello, { timeoutMs: patientMs }), isChannelError(/cannot connect/));
  const silent = createServer((socket) => socket.on('error', () => undefined).resume()).listen(path);
  await once(silent, 'listening');
  context.after(() => {
    silent.close();
    rmSync(folder, { recursive: true });
  });
  await assert.rejects(
    connect({ path }, hello, { timeoutMs: 1000 }),
    isChannelError(/did not say hello|cannot connect/),
  );
  const stop = new AbortController();
  const stopped = connect({ path }, hello, { timeoutMs: patientMs, signal: stop.signal });
  stop.abort();
  await assert.rejects(stopped, isChannelError(/link|connect/));
});

test('a socket left over by a dead process is replaced, one in use and a file are not', async (context) => {
  const peer = await listen(context);
  const { path } = peer.address as { path: string };
  const options: LinkServerOptions = {
    accept: () => undefined,
    local: (other) => other,
    link: (link) => link.destroy(),
    handshakeTimeoutMs: 1000,
  };
  assert.equal(statSync(path).mode & 0o777, 0o600);
  await assert.rejects(LinkServer.listen({ path }, options), isChannelError(/another process listens/));
  const leftOver = `${path}.old`;
  const bindAndDie =
    `require('net').createServer().listen(${JSON.stringify(leftOver)}, () => process.kill(process.pid, ` +
    `'SIGKILL'))`;
  await once(spawn(process.execPath, ['-e', bindAndDie], { stdio: 'ignore' }), 'exit');
  assert.ok(statSync(leftOver).isSocket());
  const replaced = await LinkServer.listen({ path: leftOver }, options);
  await replaced.close();
  assert.equal(statSync(leftOver, { throwIfNoEntry: false }), undefined);
  writeFileSync(`${path}.txt`, 'precious');
  await assert.rejects(LinkServer.listen({ path: `${path}.txt` }, options), isChannelError(/not a socket/));
});

test('a link that times out or is reset is not ended by its peer, which may live, and speak', async (context) => {
  for (const code of ['ETIMEDOUT', 'EHOSTUNREACH', 'ECONNRESET', 'EPIPE']) {
    const { client } = await pair(context);
    const heard = hear(client);
    const socket = Reflect.get(client, 'socket') as Socket;
    socket.destroy(Object.assign(new Error(code), { code }));
    await heard.closed;
    assert.equal(client.endedByPeer, false, code);
  }
});

test('who answers for another VM, or with another kind of link, is no peer', async (context) => {
  for (const [other, text] of [
    [{ vm: 'another' }, /protects another, not guest/],
    [{ kind: 'bulk' }, /offers a bulk link/],
  ] as const) {
    const peer = await listen(context, { local: (asked) => ({ ...asked, node: 'right', ...other }) });
    await assert.rejects(connect(peer.address, hello, { timeoutMs: patientMs }), isChannelError(text));
  }
});
