// The service's API as a target of the fuzzer: what anybody on the network may send to its TLS port, as nobody, with a
// token, with the certificate of a node or of a stranger, or without any TLS; and what root sends to its Unix socket.
// Behind it stands a cluster that only notes who was let in to ask what.
//
//   input     door u8 │ what is sent there
//   promises  nobody gets in without a token or certificate, a token never where only nodes may; a body that is let
//             through is one of its route; no answer is a bug of ours; what is refused is counted; the server serves on

import assert from 'node:assert/strict';
import { EventEmitter } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createConnection, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect as connectTls } from 'node:tls';
import { routes } from '../../src/api/routes.ts';
import { ColoError, errorCodes } from '../../src/base/errors.ts';
import { type Identity, readIdentity } from '../../src/base/identity.ts';
import { silentLog } from '../../src/base/log.ts';
import { tokenHash } from '../../src/colod/authentication.ts';
import { type Call, type Handlers, ServiceServer } from '../../src/colod/server.ts';
import { createAuthority, issueCertificate } from '../../src/host/certificates.ts';
import { firstAnswer } from './answer.ts';
import type { Target } from './fuzz.ts';

// `token` and `nobody` are one door: it depends on what is said there.
const doors = ['socket', 'nobody', 'token', 'node', 'stranger', 'plain'] as const;
type Door = (typeof doors)[number];

const token = 'secret';
/** Whoever has no answer by then has asked for something that waits for more: it hears that there is no more. */
const patienceMs = 60;
const answerTimeoutMs = 20_000;

/** A server of its own for each door: what one does late is not taken for what the next one did. */
interface Behind {
  socketPath: string;
  server: ServiceServer;
  calls: { id: string; call: Call }[];
}

let folder: string | undefined;
let identities: Promise<Record<'node' | 'stranger', Identity>> | undefined;
const behind = new Map<Door, Promise<Behind>>();

async function createIdentities(at: string): Promise<Record<'node' | 'stranger', Identity>> {
  const issue = async (authority: string) => {
    await createAuthority(join(at, authority), authority);
    return readIdentity(await issueCertificate(join(at, authority), { node: 'h1', addresses: ['127.0.0.1'] }));
  };
  return { node: await issue('own'), stranger: await issue('other') };
}

async function listenBehind(door: Door, at: string, identity: Identity): Promise<Behind> {
  const tokens = join(at, `tokens-${door}`);
  writeFileSync(tokens, `anna:${tokenHash(token)}:admin\n`, { mode: 0o600 });
  const calls: Behind['calls'] = [];
  const handlers = new Proxy({} as Handlers, {
    get: (_, id: string) => async (call: Call) => {
      calls.push({ id, call });
      if (id === 'failover') throw new ColoError(errorCodes.qemu, 'it is not protected');
      return {};
    },
  });
  const socketPath = join(at, `${door}.sock`);
  const secure = { host: '127.0.0.1', port: 0, identity, tokens };
  const events = new EventEmitter().setMaxListeners(0);
  const server = await ServiceServer.listen({ socketPath, secure, handlers, events, log: silentLog });
  return { socketPath, server, calls };
}

async function open(door: Door): Promise<{ own: Behind; socket: Socket }> {
  folder ??= mkdtempSync(join(tmpdir(), 'colo-fuzz-service-'));
  identities ??= createIdentities(folder);
  const { node, stranger } = await identities;
  const own = await (behind.get(door) ?? listenBehind(door, folder, node));
  if (!behind.has(door)) behind.set(door, Promise.resolve(own));
  const at = { host: '127.0.0.1', port: own.server.port };
  if (door === 'socket') return { own, socket: createConnection(own.socketPath) };
  if (door === 'plain') return { own, socket: createConnection(at) };
  const shown = door === 'node' ? node : door === 'stranger' ? stranger : undefined;
  const certificate = shown === undefined ? {} : { cert: shown.certificate, key: shown.key };
  return { own, socket: connectTls({ ...at, ca: node.ca, ...certificate }) };
}

/** The first answer, or whatever came before the other side hung up. */
async function send(socket: Socket, bytes: Uint8Array): Promise<string> {
  const isWhole = (answer: string) => {
    const body = answer.indexOf('\r\n\r\n') + 4;
    const isStream = answer.includes('event-stream');
    return body >= 4 && (isStream || /\}$|\r\n0\r\n\r\n$/.test(answer.slice(body)));
  };
  const answered = firstAnswer(socket, { isWhole, limitMs: answerTimeoutMs, late: () => 'no answer' });
  socket.write(bytes);
  const patience = setTimeout(() => socket.end(), patienceMs);
  const said = await answered;
  clearTimeout(patience);
  socket.destroy();
  return said;
}

function assertAllowed(door: Door, { id, call }: Behind['calls'][number]): void {
  const route = routes.find((one) => one.id === id);
  assert.ok(route !== undefined, `${id} is no route`);
  assert.ok(door === 'socket' || door === 'node' || door === 'token', `${door} was let in to ${id}`);
  if (door === 'token') assert.notEqual(route.needs, 'node', `a token was let in to ${id}`);
  if ('body' in route) assert.ok(route.body.safeParse(call.body).success, `${id} got a body that is none of its own`);
  for (const value of Object.values(call.params)) assert.equal(typeof value, 'string');
}

const head = (line: string, ...more: string[]) => `${[`${line} HTTP/1.1`, 'host: x', ...more].join('\r\n')}\r\n\r\n`;
const bearer = `authorization: Bearer ${token}`;

function callsOf(door: Door): string[] {
  const own = door === 'token' ? [bearer] : [];
  const withBody = (line: string, body: string) => head(line, ...own, `content-length: ${body.length}`) + body;
  return [
    ...routes.map(({ method, path }) => head(`${method} ${path.replaceAll(/\{\w+\}/g, 'web')}`, ...own)),
    withBody('POST /v1/vms', '{"spec":{"vm":"web"},"on":"h1","force":false}'),
    withBody('POST /v1/vms', '{"spec":'),
    head('GET /v1/vms/web/logs?lines=20&what=console', ...own),
    head('GET /v1/vms/%2e%2e%2fx/logs?lines=0', ...own),
    head('GET //', ...own),
    head('GET http://other:99999/v1/cluster', ...own),
    head('PUT /v1/cluster', ...own),
    head('POST /v1/vms', ...own, 'content-length: 999999999'),
    `${head('POST /v1/vms', ...own, 'transfer-encoding: chunked')}2\r\n{}\r\n0\r\n\r\n`,
    head('GET /v1/cluster', 'authorization: Bearer guess'),
  ];
}

export const service: Target = {
  name: 'service',
  seeds: [
    ...doors.flatMap((door, index) =>
      (door === 'plain' || door === 'stranger' ? callsOf(door).slice(0, 3) : callsOf(door)).map((call) =>
        Buffer.concat([Buffer.of(index), Buffer.from(call)]),
      ),
    ),
    // The beginning of a handshake, and of a record that never ends.
    Buffer.concat([Buffer.of(5), Buffer.from('16030100c8010000c40303', 'hex')]),
    Buffer.of(5, 0x17, 3, 3, 0x40, 0),
  ],
  reaches: [
    ...[/^socket 200 .*runVm/, /^socket 404/, /^socket 405/, /^socket 400/, /^socket 413/, /^socket 503 COLO_E_QEMU/],
    ...[/^nobody 401 .*missing/, /^token 200 .*cluster/, /^token 403/, /^token 401/, /^node 200 .*local/],
    ...[/^stranger 401 .*certificate/, /^plain nothing .*tls/],
  ],
  feed: async (input) => {
    const door = doors[(input[0] ?? 0) % doors.length] ?? 'plain';
    const { own, socket } = await open(door);
    const { server, calls } = own;
    calls.length = 0;
    const before = { ...server.refused };
    const said = await send(socket, input.subarray(1));
    assert.notEqual(said, 'no answer', 'a connection hangs');
    assert.ok(!said.includes('COLO_E_BUG'), said);
    const hasToken = Buffer.from(input).includes(`Bearer ${token}`);
    const caller = door === 'token' || door === 'nobody' ? (hasToken ? 'token' : 'nobody') : door;
    for (const call of calls) assertAllowed(caller, call);
    const counted = Object.entries(server.refused).flatMap(([why, count]) =>
      count > (before[why as keyof typeof before] ?? 0) ? [why] : [],
    );
    const status = /^HTTP\/1\.1 (\d+)/.exec(said)?.[1] ?? 'nothing';
    if (['401', '403', '404', '405', '413'].includes(status))
      assert.ok(counted.length > 0, `${status}, and not counted`);
    const code = /COLO_E_\w+/.exec(said)?.[0] ?? '';
    const ids = [...new Set(calls.map(({ id }) => id))].join(',');
    return `${door} ${status} ${code} ${counted.join(',')} ${ids}`.trimEnd();
  },
};

export async function closeService(): Promise<void> {
  for (const own of behind.values()) await (await own).server.close();
  if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
}
