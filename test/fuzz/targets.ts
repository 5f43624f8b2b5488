// Every input that crosses a trust boundary, as a target of the fuzzer: what guests send (frames; through QEMU also NBD
// requests and QMP), what peers send (bytes and messages of a link), what operators and their programs send (spec
// files, API calls), and what is read back from disks, arbiters and registries (stored.ts). None of it may throw
// anything but a refusal, or get past a bound.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { createConnection, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { duplexPair } from 'node:stream';
import { ColoError } from '../../src/base/errors.ts';
import { FrameDecoder } from '../../src/channel/frame.ts';
import { encodeHello, parseHello, parseRefuse } from '../../src/channel/hello.ts';
import { Outbox } from '../../src/channel/outbox.ts';
import * as checkpoint from '../../src/checkpoint/message.ts';
import { ApiServer } from '../../src/child/server.ts';
import { checkSpec, parseDocumentText } from '../../src/config/spec.ts';
import * as disk from '../../src/disk/message.ts';
import { parseBeat } from '../../src/heartbeat/message.ts';
import { requestsInFlightMax } from '../../src/nbd/limits.ts';
import * as nbd from '../../src/nbd/protocol.ts';
import { NbdSession } from '../../src/nbd/session.ts';
import * as node from '../../src/node/pairing/message.ts';
import { withCard } from '../../src/packet/card.ts';
import { FrameView } from '../../src/packet/frame-view.ts';
import { frameCorpus } from '../../src/proxy/testbed/fuzz.ts';
import { Bed } from '../../src/proxy/testbed/testbed.ts';
import { Qmp } from '../../src/qemu/qmp.ts';
import { firstAnswer } from './answer.ts';
import { type Target, words } from './fuzz.ts';
import { closeHandlers, handlers } from './handlers.ts';
import { servedIdle } from './idle-node.ts';
import { addressList, guestStream } from './network.ts';
import { qmpReplies, turnsClock } from './qemu.ts';
import { closeService, service } from './service.ts';
import { closeStored, storedTargets } from './stored.ts';

const text = (value: string) => Buffer.from(value);

/** Words of a refusal, or what kind of thing was made of it; anything else that is thrown is a broken promise. */
function outcomeOf(action: () => unknown): string {
  try {
    const result = action();
    return result instanceof ColoError ? words(result.message) : `taken ${shapeOf(result)}`;
  } catch (error) {
    if (error instanceof ColoError) return words(error.message);
    throw error;
  }
}

/**
 * What kind of thing a value is: alike ones have the same, however large their numbers and however long their bytes.
 */
function shapeOf(value: unknown): string {
  if (typeof value === 'number') return value === 0 ? '0' : value < 2 ** 32 ? 'n' : 'N';
  if (typeof value === 'string') return value === '' ? 'empty' : 'text';
  if (value instanceof Uint8Array) return value.length === 0 ? 'none' : 'bytes';
  if (Array.isArray(value)) return `[${value.slice(0, 3).map(shapeOf).join()}${value.length > 3 ? '...' : ''}]`;
  if (typeof value === 'object' && value !== null) return `{${Object.values(value).map(shapeOf).join()}}`;
  return String(value);
}

// ---- guests ----

const view = new FrameView();

const frames: Target = {
  name: 'frames',
  seeds: [
    ...frameCorpus().ofGuest,
    ...frameCorpus().ofClient,
    // As they are within a node: frames of a further network card bear its mark.
    ...frameCorpus()
      .ofGuest.slice(0, 12)
      .map((frame) => withCard(frame, 1)),
  ],
  reaches: [/^tcp {2}true/, /^udp/, /^icmp/, /^arp/, /truncated/, /^other/, /^fragment/],
  feed: (input) => {
    const { kind, refusal, contentFrom, contentTo, payloadAt, payloadBytes } = view.parse(input);
    if (kind === 'udp') assert.ok(contentFrom >= 0 && contentTo <= input.length, 'content outside of the frame');
    if (kind === 'tcp') assert.ok(payloadAt + payloadBytes <= input.length, 'payload outside of the frame');
    const said = `${kind} ${refusal ?? ''} ${view.isSyn}${view.isFin}${view.isReset} ${view.isIpv6}`;
    const bed = new Bed({ onLeave: () => undefined });
    bed.protect();
    bed.client(input);
    bed.pvm(input);
    bed.svm(input);
    bed.pass(300);
    bed.checkpoint();
    const { heldBytes, connections } = bed.primary.counters;
    assert.equal(heldBytes, 0, 'a commit leaves nothing held');
    return `${said} ${connections} ${bed.wanted.length} ${bed.network.length}`;
  },
};

const sizeBytes = 64 * 1024;

function nbdRequest(command: number, offset: number, length: number, data: Uint8Array = new Uint8Array(0)): Buffer {
  const head = Buffer.alloc(28);
  head.writeUInt32BE(nbd.magics.request, 0);
  head.writeUInt16BE(command, 6);
  head.writeBigUInt64BE(7n, 8);
  head.writeBigUInt64BE(BigInt(offset), 16);
  head.writeUInt32BE(length, 24);
  return Buffer.concat([head, data]);
}

function nbdHandshake(option: number): Buffer {
  const data =
    option === nbd.options.go ? Buffer.concat([Buffer.of(0, 0, 0, 5), text('disk0'), Buffer.of(0, 0)]) : text('disk0');
  const head = Buffer.alloc(16);
  head.writeBigUInt64BE(nbd.magics.option, 0);
  head.writeUInt32BE(option, 8);
  head.writeUInt32BE(data.length, 12);
  return Buffer.concat([Buffer.of(0, 0, 0, 3), head, data]);
}

const nbdSession: Target = {
  name: 'nbd',
  seeds: Object.values(nbd.options).flatMap((option) => [
    nbdHandshake(option),
    ...Object.values(nbd.commands).map((command) =>
      Buffer.concat([
        nbdHandshake(option),
        nbdRequest(command, 512, 512, command === nbd.commands.write ? Buffer.alloc(512, 3) : undefined),
        nbdRequest(nbd.commands.flush, 0, 0),
      ]),
    ),
  ]),
  reaches: [/read/, /write( |$)/, /flush/, /trim/, /writeZeroes/, /ended/, /refused/],
  feed: (input) => {
    const said: string[] = [];
    let out = 0;
    const session = new NbdSession([{ name: 'disk0', sizeBytes, readOnly: false, flush: true }], {
      send: (...parts) => void said.push(`s${Math.min(3, parts.length)}`),
      request: (request) => {
        out += 1;
        said.push(request.kind);
        if (!('offset' in request)) return;
        assert.ok(request.offset >= 0 && request.length > 0 && request.offset + request.length <= sizeBytes);
      },
      ended: (why) => void said.push(why === undefined ? 'ended' : 'refused'),
    });
    for (let at = 0; at < input.length; at += 37) session.push(Buffer.from(input.subarray(at, at + 37)));
    assert.ok(out <= requestsInFlightMax);
    return said.slice(0, 12).join(' ');
  },
};

const greeting = text('{"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}}, "capabilities": []}}\r\n');

const qmp: Target = {
  name: 'qmp',
  seeds: [
    greeting,
    Buffer.concat([greeting, text('{"return": {}, "id": 1}\r\n')]),
    Buffer.concat([greeting, text('{"error": {"class": "GenericError", "desc": "no"}, "id": 1}\r\n')]),
    Buffer.concat([greeting, text('{"event": "STOP", "data": {}, "timestamp": {}}\r\n{"return": {}, "id": 1}\r\n')]),
    text('not json\r\n{"id": []}\r\n[]\r\nnull\r\n'),
  ],
  reaches: [
    /^open 0/,
    /said nothing/,
    /sent what is not QMP/,
    /QEMU did not answer/,
    /QEMU refused qmpcapabilities no/,
  ],
  feed: async (input) => {
    const [ours, theirs] = duplexPair();
    const events: string[] = [];
    // As a socket does that is not half open.
    ours.once('end', () => ours.destroy());
    theirs.on('error', () => undefined);
    // The first line greets; the others answer what is asked then.
    const end = input.indexOf(10) + 1;
    theirs.once('data', () => theirs.end(input.subarray(end)));
    theirs.write(input.subarray(0, end));
    if (end === 0) theirs.end(input);
    const opened = Qmp.open(ours as unknown as Socket, { clock: turnsClock });
    try {
      const monitor = await opened;
      monitor.on('STOP', ({ name }) => void events.push(name));
      monitor.close();
      return `open ${events.length}`;
    } catch (error) {
      if (!(error instanceof ColoError)) throw error;
      return words(error.message);
    } finally {
      ours.destroy();
      theirs.destroy();
    }
  },
};

// ---- peers ----

function stream(messages: readonly [type: number, payload: Uint8Array][]): Buffer {
  const outbox = new Outbox();
  for (const [type, payload] of messages) outbox.add(type, [payload]);
  return Buffer.concat(outbox.take());
}

const hello = encodeHello({ vm: 'vm', node: 'a', kind: 'bulk', term: 1, session: 'session' });

const channel: Target = {
  name: 'channel',
  seeds: [
    stream([[255, hello]]),
    stream([
      [1, Buffer.alloc(3)],
      [2, Buffer.alloc(0)],
      [239, Buffer.alloc(400, 7)],
    ]),
    stream([
      [254, text('busy')],
      [253, Buffer.alloc(0)],
    ]),
    Buffer.alloc(16),
  ],
  reaches: [/hello/, /254 /, / magic/, / version/, / type/, / length/, / checksum/],
  feed: (input) => {
    const decoder = new FrameDecoder();
    const said: string[] = [];
    const refusal = decoder.push(Buffer.from(input), (type, payload) => {
      said.push(String(type));
      if (type === 255) said.push('kind' in parseHello(Buffer.from(payload)) ? 'hello' : 'none');
      if (type === 254) said.push(words(String(parseRefuse(Buffer.from(payload)))).slice(0, 8));
      return true;
    });
    return `${said.slice(0, 6).join(' ')} ${refusal?.kind ?? ''}`;
  },
};

/** The first byte says which message it is; the rest is its payload. */
const parsers: readonly ((payload: Uint8Array) => unknown)[] = [
  checkpoint.parseBegin,
  checkpoint.parsePages,
  checkpoint.parseState,
  checkpoint.parseEnd,
  checkpoint.parseApplied,
  checkpoint.parseTemplate,
  disk.parseSession,
  (payload) => disk.parseRecord(payload, [4096, 8192]),
  disk.parseMark,
  disk.parseAbort,
  disk.parseHash,
  parseBeat,
  (payload) => node.numberAt(payload, 0),
  node.decodeNumbers,
  (payload) => node.countAt(payload, 0),
  node.decodeText,
  (payload) => parseHello(Buffer.from(payload)),
];

const messageSeeds: readonly Uint8Array[] = [
  checkpoint.encodeBegin({ epoch: 2, base: 1, sequence: 0, kind: 'checkpoint' }),
  disk.encodeSession({ sizes: [4096, 8192], durable: true }),
  disk.encodeRecordHead({ disk: 1, kind: 2, offset: 512, length: 512, position: 9 }),
  Buffer.concat([disk.encodeRecordHead({ disk: 0, kind: 1, offset: 0, length: 8, position: 1 }), Buffer.alloc(8, 5)]),
  disk.encodeMark({ epoch: 3, position: 77 }),
  disk.encodeAbort(3),
  disk.encodeHash({ epoch: 1, disk: 0, hash: 'abcdef' }),
  node.encodeNumber(5),
  node.encodeNumbers([1, 2, 3]),
  node.encodeCount(2 ** 40),
  node.encodeEgressHead(2 ** 40, 7),
  node.encodeText('why'),
  hello,
];

const messages: Target = {
  name: 'messages',
  seeds: parsers.flatMap((_, index) => messageSeeds.map((seed) => Buffer.concat([Buffer.of(index), seed]))),
  reaches: [...parsers.map((_, index) => new RegExp(`^${index} taken`)), ...[/malformed/, /too large/]],
  feed: (input) => {
    const parser = parsers[(input[0] ?? 0) % parsers.length];
    assert.ok(parser);
    return `${(input[0] ?? 0) % parsers.length} ${outcomeOf(() => parser(Buffer.from(input.subarray(1))))}`;
  },
};

// ---- operators ----

const spec: Target = {
  name: 'spec',
  seeds: [
    text('vm: web\nboot: {guest: demo}\n'),
    text('vm: web\nboot: {kernel: /k, initrd: /i, cmdline: "x"}\nmachine: {type: pc, memory: 512M, vcpus: 2}\n'),
    text('vm: web\nboot: {from: disk}\ndisks: [{path: /d.raw, format: raw, flush: replicated}]\nreplicaFolder: /r\n'),
    text(
      'vm: web\nboot: {guest: demo}\nnetwork: {forwards: [{host: 80, guest: 80}], bypass: [{protocol: udp, ' +
        'port: 53}]}\n',
    ),
    text('vm: web\nboot: {guest: demo}\nprotect: {mode: remus, interval: 20ms, verify: true, dirtyMax: 1G}\n'),
    text('a: &a [*a]\nvm: !!binary x\n? {}\n'),
  ],
  reaches: [/^a spec colo/, /^a spec remus/, /Unrecognized key/, /Invalid input/, /boot either/, /at line/],
  feed: (input) => {
    try {
      const document = parseDocumentText(Buffer.from(input).toString('utf8'), 'the input');
      return `a spec ${checkSpec(document, 'the input').protect.mode}`;
    } catch (error) {
      if (!(error instanceof ColoError)) throw error;
      return `${error.message.split('\n').length} ${words(error.message)}`;
    }
  },
};

/** One server for all inputs: a node that was never started answers as such. */
class Api {
  private readonly folder = mkdtempSync(join(tmpdir(), 'colo-fuzz-'));
  private readonly path = join(this.folder, 'api.sock');
  private server: Promise<ApiServer> | undefined;

  async ask(input: Uint8Array): Promise<string> {
    this.server ??= ApiServer.listen(this.path, servedIdle());
    await this.server;
    const socket = createConnection(this.path);
    const isWhole = (answer: string) => answer.includes('\r\n\r\n');
    const answered = firstAnswer(socket, { isWhole, limitMs: 2000, late: (answer) => answer });
    socket.end(input);
    const said = await answered;
    socket.destroy();
    return said;
  }

  async close(): Promise<void> {
    await (await this.server)?.close();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

const api = new Api();
const call = (head: string, body = '') => text(`${head} HTTP/1.1\r\nhost: x\r\n\r\n${body}`);

const apiCalls: Target = {
  name: 'api',
  seeds: [
    call('GET /status'),
    call('POST /checkpoint'),
    call('POST /failover'),
    call('DELETE /status'),
    text('PUT /peers HTTP/1.1\r\nhost: x\r\ncontent-length: 34\r\n\r\n[{"node":"b","address":{"path":1}}]'),
    text('PUT /peers HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n[]'),
    text('POST /failover HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\n{"a":'),
    text('POST /checkpoint HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n'),
  ],
  reaches: [
    / 200 .*vm/,
    / 400 .*not the primary/,
    / 404 .*no such thing/,
    / 400 .*no list of peers/,
    /400 Bad Request {2}none/,
  ],
  feed: async (input) => {
    const said = await api.ask(input);
    // What is no HTTP is refused by Node itself; what is must never meet a bug of ours.
    assert.ok(!said.includes('COLO_E_BUG'), said);
    const code = /COLO_E_\w+/.exec(said)?.[0] ?? '';
    const body = said.split('\r\n\r\n')[1] ?? '';
    const member = /\{"(\w+)/.exec(body)?.[1] ?? 'none';
    return `${said.split('\r\n')[0] ?? ''} ${code} ${member} ${words(/"message":"([^"]*)/.exec(said)?.[1] ?? '')}`;
  },
};

export const targets: readonly Target[] = [
  ...[
    frames,
    guestStream,
    nbdSession,
    qmp,
    qmpReplies,
    channel,
    addressList,
    messages,
    spec,
    apiCalls,
    service,
    handlers,
  ],
  ...storedTargets,
];

export async function closeTargets(): Promise<void> {
  await api.close();
  await closeService();
  await closeHandlers();
  await closeStored();
}
