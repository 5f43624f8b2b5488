// What stands behind the service's API as a target of the fuzzer: a whole service of a small cluster, whose store is in
// memory, asked over its Unix socket for every route of its OpenAPI document. Its own VM has a child that answers as a
// node that was never started; the other node of the cluster is not there. Each input begins at the same cluster.
//
//   input     calls, one behind the other, divided by a byte 0x1e
//   call      route u8 │ name "\n" query "\n" body, up to the end
//   body      JSON as it stands, or lines "PATH VALUE" that change a body that is right: so changed bytes get behind
//             the JSON
//   promises  an answer is what its route says, or a refusal of 400 to 499 in its JSON; 503 when the other node is
//             needed, or room. Every entry of the store can be read, no VM is named or addressed as another, every
//             spec is one. The service answers the next call

import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createConnection } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { clusterSchema } from '../../src/api/cluster.ts';
import { errorSchema } from '../../src/api/refusal.ts';
import { type Route, routes } from '../../src/api/routes.ts';
import { MemoryArbiter } from '../../src/arbiter/memory.ts';
import type { Clock } from '../../src/base/clock.ts';
import { readIdentity } from '../../src/base/identity.ts';
import { silentLog } from '../../src/base/log.ts';
import { processIdentity } from '../../src/base/processes.ts';
import { ApiServer } from '../../src/child/server.ts';
import { MemoryStore, newShared } from '../../src/cluster/memory-store.ts';
import { Registry } from '../../src/cluster/registry.ts';
import { childPaths, specOf } from '../../src/colod/child-config.ts';
import { checkServiceConfig } from '../../src/colod/config.ts';
import { handlersOf } from '../../src/colod/handlers.ts';
import { ServiceServer } from '../../src/colod/server.ts';
import { Service } from '../../src/colod/service.ts';
import { addressesOf } from '../../src/colod/taken.ts';
import { createAuthority, issueCertificate } from '../../src/host/certificates.ts';
import { firstAnswer } from './answer.ts';
import { type Target, words } from './fuzz.ts';
import { servedIdle } from './idle-node.ts';

const answerTimeoutMs = 20_000;
const callsMax = 4;
const divider = 0x1e;
const life = '0123abcd';

/** Nothing is due by itself: the service does what it is asked. */
const still: Clock = { now: () => 0, after: () => () => undefined, every: () => () => undefined };

const shared = newShared();
const registry = new Registry(new MemoryStore(shared, still));

interface Stage {
  folder: string;
  socketPath: string;
  service: Service;
  close(): Promise<void>;
}

let stage: Promise<Stage> | undefined;

async function open(): Promise<Stage> {
  const folder = mkdtempSync(join(tmpdir(), 'colo-fuzz-handlers-'));
  await createAuthority(join(folder, 'ca'), 'own');
  const certificates = await issueCertificate(join(folder, 'ca'), { node: 'h1', addresses: ['127.0.0.1'] });
  const own = { node: 'h1', address: '127.0.0.1', certificates, arbiter: { folder: join(folder, 'cluster') } };
  const places = { runFolder: join(folder, 'run'), stateFolder: join(folder, 'state') };
  const config = checkServiceConfig({ ...own, ...places, socket: join(folder, 'colod.sock') }, 'the target');
  const paths = childPaths(config, 'web');
  for (const each of [paths.folder, paths.logs]) mkdirSync(each, { recursive: true });
  writeFileSync(paths.config, JSON.stringify({ node: { life, listen: { host: '127.0.0.1', port: 7800 } } }));
  writeFileSync(paths.identity, processIdentity(process.pid) ?? '');
  writeFileSync(paths.log, '{"level":"info"}\n{"level":"error"}\n');
  const child = await ApiServer.listen(paths.api, servedIdle());
  const cluster = { arbiter: new MemoryArbiter(new Map()), registry };
  const service = await Service.start(config, { clock: still, log: silentLog, cluster });
  const server = await ServiceServer.listen({
    socketPath: config.socket,
    secure: { host: '127.0.0.1', port: 0, identity: readIdentity(certificates), tokens: undefined },
    handlers: handlersOf(service, () => server.refused),
    events: service.events,
    log: silentLog,
    clock: still,
  });
  const close = async () => {
    await server.close();
    await child.close();
    rmSync(folder, { recursive: true, force: true });
  };
  return { folder, socketPath: config.socket, service, close };
}

const specFor = (vm: string, last: number) => ({
  ...{ vm, boot: { kernel: '/k', initrd: '/i', cmdline: '' }, machine: { memory: '64M' } },
  network: { mac: `52:54:00:00:00:0${last}`, address: `192.0.2.${last}` },
});

/** Its own VM, one of the node that is not there, and one that was removed and may still be there. */
async function begin(service: Service): Promise<void> {
  shared.entries.clear();
  const hosted = { life, role: 'primary', state: 'alone', why: '', protected: false, term: 3 } as const;
  const rest = { address: '127.0.0.1', cores: 2, memoryBytes: 2 ** 32, version: '1', refused: 0 };
  const hosts = (vm: string) => [{ ...hosted, vm, port: 7800, failures: 0 }];
  const node = { ...rest, memoryFreeBytes: 2 ** 31, apiPort: 1 };
  await registry.announce({ ...node, node: 'h1', hosted: hosts('web') }, 1);
  await registry.announce({ ...node, node: 'h2', hosted: hosts('db') }, 1);
  for (const [vm, home, last] of [['web', 'h1', 1] as const, ['db', 'h2', 2] as const, ['old', 'h2', 3] as const]) {
    await registry.createVm({ vm, life, home, spec: specFor(vm, last), memoryBytes: 2 ** 26, protect: true });
    await registry.place(vm, { life, nodes: [home], revision: 0 });
  }
  const { vms, placements } = await registry.read();
  const old = vms.find(({ vm }) => vm === 'old');
  assert.ok(old !== undefined);
  const left = { placement: placements.get('old'), nodes: ['h2'], addresses: addressesOf(old) };
  assert.ok(await registry.removeVm(old, left));
  await service.refresh();
}

/** Bytes of an input as a part of a path or a query: whatever they are, the server has to find the name in it. */
function quoted(bytes: Buffer, allowed: RegExp): string {
  return [...bytes]
    .map((byte) => {
      const letter = String.fromCharCode(byte);
      return allowed.test(letter) ? letter : `%${byte.toString(16).padStart(2, '0')}`;
    })
    .join('');
}

/** The body that lines say: each puts its value, JSON or text, into one that is right. */
function bodyOf(text: string): string {
  if (text.startsWith('{') || text === '') return text;
  const body: Record<string, unknown> = { spec: specFor('new', 9) };
  for (const line of text.split('\n').slice(0, 40)) {
    const [path = '', value = ''] = line.split(/ (.*)/s);
    const names = path.split('.').slice(0, 5);
    let at = body;
    for (const name of names.slice(0, -1)) {
      const inner = Object.hasOwn(at, name) ? at[name] : undefined;
      const next = typeof inner === 'object' && inner !== null ? (inner as Record<string, unknown>) : {};
      Object.defineProperty(at, name, { value: next, enumerable: true, writable: true, configurable: true });
      at = next;
    }
    const put = { value: jsonOr(value), enumerable: true, writable: true, configurable: true };
    Object.defineProperty(at, names.at(-1) ?? '', put);
  }
  return JSON.stringify(body);
}

function jsonOr(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

interface FuzzedRequest {
  route: Route;
  text: string;
}

function requestOf(bytes: Buffer): FuzzedRequest {
  const route = routes[(bytes[0] ?? 0) % routes.length] ?? routes[0];
  const nameEnd = bytes.indexOf('\n', 1);
  const name = bytes.subarray(1, nameEnd < 0 ? bytes.length : nameEnd);
  const queryEnd = nameEnd < 0 ? -1 : bytes.indexOf('\n', nameEnd + 1);
  const query = nameEnd < 0 ? Buffer.of() : bytes.subarray(nameEnd + 1, queryEnd < 0 ? bytes.length : queryEnd);
  const body = Buffer.from(queryEnd < 0 ? '' : bodyOf(bytes.subarray(queryEnd + 1).toString('utf8')));
  const path = route.path.replace(/\{\w+\}/, quoted(name, /[\w.~-]/));
  const asked = query.length === 0 ? path : `${path}?${quoted(query, /[\w.~&=+-]/)}`;
  const head = [`${route.method} ${asked} HTTP/1.1`, 'host: x', 'connection: close', `content-length: ${body.length}`];
  return { route, text: `${head.join('\r\n')}\r\n\r\n${body.toString('latin1')}` };
}

async function ask(socketPath: string, { route, text }: FuzzedRequest): Promise<{ status: number; body: unknown }> {
  const socket = createConnection(socketPath);
  const isWhole = (answer: string) => 'stream' in route && /\r\n\r\n.*\n\n/s.test(answer);
  const answered = firstAnswer(socket, { isWhole, limitMs: answerTimeoutMs, late: () => 'no answer' });
  socket.write(Buffer.from(text, 'latin1'));
  const said = await answered;
  socket.destroy();
  const [head = '', body = ''] = Buffer.from(said, 'latin1')
    .toString('utf8')
    .split(/\r\n\r\n(.*)/s);
  const status = Number(/^HTTP\/1\.1 (\d+)/.exec(head)?.[1] ?? assert.fail(`no HTTP: ${said}`));
  const whole = /^transfer-encoding: chunked/im.test(head) ? (/\{.*\}/s.exec(body)?.[0] ?? '') : body;
  return { status, body: JSON.parse(whole) };
}

/** What every answer has to be. */
function check({ route }: FuzzedRequest, { status, body }: { status: number; body: unknown }): string {
  if (status === 200) {
    const problem = route.answer.safeParse(body).error?.message;
    assert.equal(problem, undefined, `${route.id} does not answer what it says`);
    return `${route.id} 200`;
  }
  const { error } = errorSchema.parse(body);
  assert.ok((status >= 400 && status < 500) || status === 503, `${route.id} ${status}: ${error.message}`);
  assert.notEqual(error.code, 'COLO_E_BUG', error.message);
  const said = error.message.replace(/the spec of \S*/, 'the spec').replace(/(named|copy of|keys?:?) .*/s, '$1');
  return `${route.id} ${status} ${words(said)}`;
}

/** What the store has to be, whatever was asked. */
async function checkStore(): Promise<string> {
  const { vms, problems, placements, removed } = await registry.read();
  assert.deepEqual(problems, []);
  const taken = vms.flatMap((record) => {
    specOf(record);
    assert.match(record.home, /^h[12]$/);
    assert.ok(shared.entries.has(`vms/${record.vm}`), `${record.vm} is kept under another name`);
    return addressesOf(record);
  });
  assert.equal(new Set(taken).size, taken.length, `of two VMs: ${taken.join()}`);
  for (const vm of placements.keys()) assert.ok(vms.some((one) => one.vm === vm) || removed.has(vm));
  return `${vms.length} VMs, ${removed.size} removed`;
}

const call = (id: string, name = '', query = '', body = '') =>
  Buffer.concat([Buffer.of(routes.findIndex((one) => one.id === id)), Buffer.from(`${name}\n${query}\n${body}`)]);
const behind = (...calls: Buffer[]) =>
  Buffer.concat(calls.flatMap((one, index) => (index === 0 ? [one] : [Buffer.of(divider), one])));
const newVm = JSON.stringify({ spec: specFor('new', 9), on: 'h1', force: false });

export const handlers: Target = {
  name: 'handlers',
  seeds: [
    ...routes.flatMap(({ id, path }) =>
      (path.includes('{') ? ['web', 'db', 'old', 'h2', '../../x', '__proto__', ''] : ['']).map((name) =>
        call(id, name),
      ),
    ),
    ...[
      call('logs', 'web', 'lines=1&what=console'),
      call('localLogs', 'web', 'lines=10001'),
      call('logs', 'web', 'x=1'),
    ],
    ...[
      call('runVm', '', '', newVm),
      call('runVm', '', '', '{"spec":'),
      call('runVm', '', '', '{"spec":{"vm":"new"}}'),
    ],
    call('runVm', '', '', 'spec.vm web'),
    call('runVm', '', '', 'spec.network.address 192.0.2.1'),
    call('runVm', '', '', 'spec.vm old'),
    call('runVm', '', '', 'spec.vm old\nforce true'),
    call('runVm', '', '', 'spec.vm __proto__\nspec.network.address 192.0.2.1'),
    call('runVm', '', '', 'spec.network.mac 52:54:00:00:00:03\nspec.network.address 192.0.2.3'),
    call('runVm', '', '', 'spec.machine.memory 1T\nspec.protect.mode none'),
    call('runVm', '', '', 'spec.disks [{"path":"/d.raw","format":"raw"}]'),
    call('runVm', '', '', 'on h2\nspec.disks [{"path":"/d.raw","format":"raw"}]\nspec.replicaFolder /r'),
    call('runVm', '', '', 'on h3'),
    call('runVm', '', '', 'spec.cards [{"mac":"52:54:00:00:00:07","address":"192.0.2.7","bridge":"br1"}]'),
    behind(call('runVm', '', '', newVm), call('runVm', '', '', newVm), call('removeVm', 'new'), call('vm', 'new')),
    behind(call('drain', 'h1'), call('drain', 'h2'), call('runVm', '', '', 'spec.vm new'), call('undrain', 'h1')),
    behind(call('removeVm', 'web'), call('runVm', '', '', 'spec.vm web'), call('failover', 'web'), call('cluster')),
  ],
  reaches: [
    ...routes.filter(({ id }) => !/ailover$|heckpoint$/.test(id)).map(({ id }) => new RegExp(`(^|; )${id} 200`)),
    ...[/failover 400/, /checkpoint 400/, /failover 503/, /localFailover 400/, /localCheckpoint 400/],
    ...[
      /runVm 400/,
      /runVm 404/,
      /runVm 409 this cluster has a VM/,
      /runVm 409 .*already/,
      /runVm 409 .*removed/,
      /runVm 503 no node/,
      /vm 404/,
      /logs 400/,
    ],
    ...[/3 VMs/, /2 VMs, 1 removed/, /1 VMs, 2 removed/],
  ],
  feed: async (input) => {
    stage ??= open();
    const { socketPath, service } = await stage;
    await begin(service);
    const said: string[] = [];
    for (const bytes of divided(Buffer.from(input)).slice(0, callsMax)) {
      const request = requestOf(bytes);
      said.push(check(request, await ask(socketPath, request)));
    }
    const left = await checkStore();
    const { body } = await ask(socketPath, requestOf(call('cluster')));
    clusterSchema.parse(body);
    return `${said.join('; ')}: ${left}`;
  },
};

function divided(input: Buffer): Buffer[] {
  const parts: Buffer[] = [];
  let from = 0;
  for (let at = input.indexOf(divider); at >= 0; at = input.indexOf(divider, from)) {
    parts.push(input.subarray(from, at));
    from = at + 1;
  }
  return [...parts, input.subarray(from)];
}

export async function closeHandlers(): Promise<void> {
  await (await stage)?.close();
}
