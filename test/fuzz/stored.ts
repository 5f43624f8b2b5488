// Inputs of the fuzzer that a node reads back from where it or another one put them: device state and template of a
// peer, the arbiter's and the registry's records (files, and etcd's answers), the header and the journal of a replica,
// what QEMU's NBD server says of a disk. Disks rot, storage is shared, and a peer may be of another version.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { crc32, deflateRawSync } from 'node:zlib';
import { EtcdArbiter } from '../../src/arbiter/etcd.ts';
import { FolderArbiter } from '../../src/arbiter/folder.ts';
import { systemClock } from '../../src/base/clock.ts';
import { ColoError } from '../../src/base/errors.ts';
import * as checkpoint from '../../src/checkpoint/message.ts';
import { EtcdStore } from '../../src/cluster/etcd-store.ts';
import { FolderStore } from '../../src/cluster/folder-store.ts';
import { Registry } from '../../src/cluster/registry.ts';
import { encodeHeader, parseHeader } from '../../src/disk/header.ts';
import { recordKinds } from '../../src/disk/message.ts';
import { encodeSegmentRecord, segmentRecordAt } from '../../src/disk/segment.ts';
import { NbdClient } from '../../src/nbd/client.ts';
import * as nbd from '../../src/nbd/protocol.ts';
import { Bed, overIpv6 } from '../../src/proxy/testbed/testbed.ts';
import { assertLoadable, Carrier, unpackTemplate } from '../../src/qemu/carrier.ts';
import { alignClock, guestTime, tscTicksPerMs } from '../../src/qemu/device-state.ts';
import { type Target, words } from './fuzz.ts';

const folder = mkdtempSync(join(tmpdir(), 'colo-fuzz-stored-'));
const text = (value: string) => Buffer.from(value);
const asText = (input: Uint8Array) => Buffer.from(input).toString('utf8');

/** Words of a refusal; anything else that is thrown is a broken promise. */
async function said(action: () => unknown): Promise<string> {
  try {
    const result = await action();
    return result === undefined ? 'nothing' : 'taken';
  } catch (error) {
    if (!(error instanceof ColoError)) throw error;
    return words(error.message);
  }
}

// ---- a peer's device state ----

function section(id: number, name: string, version: number, content: Uint8Array): Buffer {
  const head = Buffer.alloc(14 + name.length);
  head.writeUInt8(4, 0);
  head.writeUInt32BE(id, 1);
  head.writeUInt8(name.length, 5);
  head.write(name, 6, 'latin1');
  head.writeUInt32BE(version, 10 + name.length);
  const footer = Buffer.alloc(5);
  footer.writeUInt8(0x7e, 0);
  footer.writeUInt32BE(id, 1);
  return Buffer.concat([head, content, footer]);
}

function timer(ticks: bigint, clockNs: bigint): Buffer {
  const content = Buffer.alloc(24);
  content.writeBigInt64BE(ticks, 0);
  content.writeBigInt64BE(clockNs, 16);
  return content;
}

const stateHead = Buffer.of(0x51, 0x45, 0x56, 0x4d, 0, 0, 0, 3);
const deviceState = Buffer.concat([
  stateHead,
  section(1, 'timer', 2, timer(5_000_000_000n, 2_000_000_000n)),
  section(2, 'cpu_common', 1, Buffer.alloc(40, 1)),
  Buffer.of(0),
]);

/** The first byte: 0 a whole message, 1 the device state alone, 2 the table of connections, 3 the held frames. */
function stateSeeds(): Uint8Array[] {
  const held = Buffer.concat([Buffer.of(0, 0, 0, 4), text('abcd'), Buffer.of(0, 0, 0, 2), text('ef')]);
  const table = connectionTable();
  const whole = [0, 12.5, -1e300].flatMap((standsMs) =>
    [table, new Uint8Array(0)].map((one) =>
      checkpoint.encodeState({ epoch: 2, deviceState, table: one, held, standsMs, ramHash: 'hash' }),
    ),
  );
  return [
    ...whole.map((one) => Buffer.concat([Buffer.of(0), one])),
    Buffer.concat([Buffer.of(1), deviceState]),
    Buffer.concat([Buffer.of(2), table]),
    Buffer.concat([Buffer.of(3), held]),
  ];
}

function stateOf(input: Uint8Array): checkpoint.State | ColoError {
  const [which = 0] = input;
  const bytes = Uint8Array.from(input.subarray(1));
  if (which % 4 === 0) return checkpoint.parseState(bytes);
  const none = { epoch: 2, deviceState, table: new Uint8Array(0), held: new Uint8Array(0), standsMs: 1, ramHash: '' };
  return { ...none, [['', 'deviceState', 'table', 'held'][which % 4] ?? 'held']: bytes };
}

function connectionTable(): Uint8Array {
  const bed = new Bed();
  bed.protect();
  bed.connect(900, 7000);
  bed.connect(5, 6, 77, overIpv6);
  return bed.primary.capture(bed.now).table;
}

const state: Target = {
  name: 'state',
  seeds: stateSeeds(),
  reaches: [/^false true nothing/, /^true no clock/, /not one complete stream/, /nothing 100/, /malformed/],
  feed: async (input) => {
    const parsed = stateOf(input);
    if (parsed instanceof ColoError) return parsed.message;
    const { standsMs, table, held } = parsed;
    const device = Uint8Array.from(parsed.deviceState);
    const time = guestTime(device);
    const ticks = tscTicksPerMs(device);
    const aligned = ticks === undefined ? 'no clock' : alignClock(device, Math.max(0, 5 - standsMs), ticks);
    assert.equal(device.length, parsed.deviceState.length);
    const loads = await said(() => assertLoadable(device));
    const bed = new Bed();
    bed.protect();
    bed.secondary.resume(parsed.epoch, table, held, bed.now);
    const { table: after, resend } = bed.secondary.takeover(bed.now);
    return `${time === undefined} ${aligned} ${loads} ${after.length} ${resend.length}`;
  },
};

const clusterBytes = 2 * 1024 * 1024;
const patchBytes = 10;

/** An image of up to three clusters with patches: cluster u8 │ offset u32 │ at the beginning u8 │ four bytes. */
function carrierOf(patches: Uint8Array): Buffer {
  const image = Buffer.alloc(clusterBytes * (1 + (patches.length % 3)) + 64);
  for (let at = 0; at + patchBytes <= patches.length; at += patchBytes) {
    const patch = Buffer.from(patches.subarray(at, at + patchBytes));
    const offset = patch[5] === 0 ? 0 : patch.readUInt32BE(1) % clusterBytes;
    patch.copy(image, Math.min(clusterBytes * ((patch[0] ?? 0) % 6) + offset, image.length - 4), 6);
  }
  return image;
}

const statePatch = (cluster: number) => Buffer.concat([Buffer.of(cluster, 0, 0, 0, 0, 0), stateHead.subarray(0, 4)]);

/** The first byte: even a template as it came, odd one that is packed here. */
const template: Target = {
  name: 'template',
  seeds: [
    ...[0, 1, 2].map((states) => {
      const patches = Array.from({ length: states }, (_, index) => statePatch(index + 1));
      return Buffer.concat([
        Buffer.of(0),
        deflateRawSync(carrierOf(Buffer.concat([...patches, Buffer.alloc([5, 1, 3][states] ?? 0)]))),
      ]);
    }),
    ...[1, 3].map((end) => Buffer.concat([Buffer.of(1), statePatch(1), Buffer.alloc(end)])),
    Buffer.concat([Buffer.of(1), statePatch(1), statePatch(3), Buffer.alloc(3)]),
  ],
  reaches: [/ invalid/, / unexpected end/, /^0 saved/, /^2 saved/, /^at 1/, /^at [2-5]/],
  feed: async (input) => {
    const path = join(folder, 'template');
    const own = input.subarray(1);
    try {
      await unpackTemplate((input[0] ?? 0) % 2 === 0 ? own : deflateRawSync(carrierOf(own), { level: 1 }), path);
    } catch (error) {
      if (!(error instanceof ColoError)) throw error;
      const states = /holds (\d+)/.exec(error.message)?.[1];
      if (states !== undefined) return `${states} saved`;
      return `${words(error.message)} ${error.cause instanceof Error ? error.cause.message : ''}`;
    }
    const bytes = statSync(path).size;
    const carrier = new Carrier(path);
    try {
      carrier.write(deviceState);
    } finally {
      carrier.close();
    }
    assert.ok(statSync(path).size <= bytes + deviceState.length);
    const at = readFileSync(path).indexOf(deviceState);
    assert.equal(at % clusterBytes, 0, 'the state lies where no cluster begins');
    return `at ${at / clusterBytes} of ${Math.floor(bytes / clusterBytes)}`;
  },
};

// ---- records ----

const wallNow = () => 1_000_000;
const termRecord = text('{"vm":"vm","term":1,"owner":"a","peer":"b"}\n');
const entries: readonly [string, string][] = [
  ['vms/web', '{"vm":"web","life":"0123abcd","home":"a","spec":{"vm":"web"},"memoryBytes":1,"protect":true}'],
  ['vms/web', '{"vm":"web","life":"0123abcd","removed":true,"nodes":["a"],"addresses":[]}'],
  ['placements/web', '{"life":"0123abcd","nodes":["a","b"]}'],
  ['drains/a', '{}'],
  [
    'nodes/a',
    '{"node":"a","address":"h","apiPort":1,"cores":2,"memoryBytes":9,"memoryFreeBytes":8,"version":"1",' +
      '"refused":0,"hosted":[]}',
  ],
];
const kinds = ['vms/web', 'placements/web', 'drains/a', 'nodes/a'] as const;

/** The first byte says whose record it is. */
const records: Target = {
  name: 'records',
  seeds: [
    Buffer.concat([Buffer.of(0), termRecord]),
    ...entries.flatMap(([key, value]) => {
      const kind = Buffer.of(1 + kinds.indexOf(key as (typeof kinds)[number]));
      return [
        Buffer.concat([kind, text(JSON.stringify({ value, revision: 3, until: null }))]),
        Buffer.concat([kind, text(JSON.stringify({ value, revision: 3, until: 2_000_000 }))]),
      ];
    }),
  ],
  reaches: [/^taken/, /arbiters record/, /^1 01000 0/, /^1 00100 0/, /^2 00010 0/, /^3 00001 0/, /^4 10000 0/, / 1 /],
  feed: async (input) => {
    const which = (input[0] ?? 0) % (kinds.length + 1);
    const own = join(folder, 'records');
    rmSync(own, { recursive: true, force: true });
    mkdirSync(own);
    const name = which === 0 ? 'vm.term-1' : `${kinds[which - 1]?.replace('/', '~')}.json`;
    writeFileSync(join(own, name), input.subarray(1));
    if (which === 0) {
      const arbiter = await FolderArbiter.open(own, systemClock);
      return said(() => arbiter.read('vm'));
    }
    const view = await new Registry(new FolderStore(own, wallNow)).read();
    return (
      `${which} ` +
      `${view.nodes.length}${view.vms.length}${view.removed.size}${view.placements.size}${view.drains.size} ` +
      `${view.problems.length} ${words(view.problems.join())}`
    );
  },
};

// ---- a server that says one thing ----

/** Answers everybody with `answer`, once they have said something, and hangs up. */
class Parrot {
  answer: Uint8Array = new Uint8Array(0);
  private readonly at: string | number;
  private server: Promise<Server> | undefined;

  constructor(at: string | number) {
    this.at = at;
  }

  /** Where it listens. */
  async open(): Promise<string> {
    this.server ??= new Promise((resolve, reject) => {
      const server = createServer((socket) => {
        socket.on('error', () => undefined);
        if (typeof this.at === 'string') socket.end(this.answer);
        else socket.once('data', () => socket.end(this.answer));
      });
      server.once('error', reject);
      server.listen(typeof this.at === 'string' ? { path: this.at } : { port: this.at, host: '127.0.0.1' }, () =>
        resolve(server),
      );
    });
    const address = (await this.server).address();
    return typeof address === 'object' && address !== null ? `http://127.0.0.1:${address.port}` : String(address);
  }

  async close(): Promise<void> {
    (await this.server)?.close();
  }
}

const etcdServer = new Parrot(0);
const http = (body: string) =>
  text(`HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`);
const base64 = (value: string) => Buffer.from(value).toString('base64');
const termValue = base64('{"term":1,"owner":"a","peer":null}');

const etcd: Target = {
  name: 'etcd',
  seeds: [
    http(`{"kvs":[{"key":"eA==","version":"1","value":"${termValue}"}]}`),
    http('{"header":{"revision":"7"},"succeeded":true}'),
    http(`{"header":{"revision":"7"},"succeeded":true,"kvs":[{"key":"eA==","version":"1","value":"${termValue}"}]}`),
    http(`{"responses":[{"response_range":{"kvs":[{"version":"1","value":"${termValue}","mod_revision":"3"}]}}]}`),
    ...entries.map(([key, value]) =>
      http(`{"kvs":[{"key":"${base64(`/colo/registry/${key}`)}","mod_revision":"5","value":"${base64(value)}"}]}`),
    ),
    http('{"ID":"77"}'),
    text('HTTP/1.1 500 no\r\ncontent-length: 0\r\n\r\n'),
  ],
  reaches: [/^nothing\|taken/, /^taken/, /^nothing/, /taken$/, /no member of etcd answered/, /etcds record/],
  feed: async (input) => {
    etcdServer.answer = input;
    const options = { endpoints: [await etcdServer.open()], askTimeoutMs: 2000 };
    const arbiter = new EtcdArbiter(options);
    const store = new EtcdStore(options);
    try {
      const results = [
        await said(() => arbiter.read('vm')),
        await said(() => arbiter.claim('vm', 0, { owner: 'a', peer: 'b' })),
        await said(() => new Registry(store).read()),
        await said(() => store.change('vms/web', 0, '{}')),
      ];
      return results.map((one) => one.slice(0, 30)).join('|');
    } finally {
      await arbiter.close();
      await store.close();
    }
  },
};

// ---- disks ----

const sizes = [4096, 8192];
const header = {
  ...{ version: 1 as const, vm: 'vm', sizes, state: 'epoch' as const, epoch: 3, term: 1, through: 0 },
  ...{ durable: true, boot: 'boot', lineage: 'l', position: 9 },
};
const record = (kind: number, data: Uint8Array) => ({
  ...{ disk: 1, kind: kind as 1, offset: 512, length: 512, position: 9, data },
});

/** The first byte: 0 a header as it is, 1 one whose checksum is right, 2 a segment, 3 one whose checksums are right. */
const replica: Target = {
  name: 'replica',
  seeds: [
    Buffer.concat([Buffer.of(0), text(encodeHeader(header))]),
    Buffer.concat([Buffer.of(1), text(encodeHeader(header))]),
    ...Object.values(recordKinds).flatMap((kind) => {
      const data = kind === recordKinds.data ? Buffer.alloc(512, 7) : Buffer.alloc(0);
      const one = Buffer.concat(encodeSegmentRecord(record(kind, data)));
      return [Buffer.concat([Buffer.of(2), one, one]), Buffer.concat([Buffer.of(3), one])];
    }),
  ],
  reaches: [/header epoch/, /header undefined/, /segment 2 0/, /segment 2 [2-9]/, /segment 3 1/],
  feed: (input) => {
    const which = (input[0] ?? 0) % 4;
    const bytes = Buffer.from(input.subarray(1));
    if (which < 2) {
      const [body = ''] = asText(bytes).split('\n');
      const sum = createHash('sha256').update(body).digest('hex').slice(0, 16);
      const parsed = parseHeader(which === 0 ? asText(bytes) : `${body}\n${sum}\n`);
      return `header ${parsed?.state}`;
    }
    if (which === 3 && bytes.length >= 8) bytes.writeUInt32BE(crc32(bytes.subarray(8)), 4);
    let found = 0;
    for (let at = 0; ; found += 1) {
      const next = segmentRecordAt(bytes, at, sizes);
      if (next === undefined) break;
      assert.ok(next.next > at && next.next <= bytes.length);
      const { disk, offset, length } = next.record;
      assert.ok(offset + length <= (sizes[disk] ?? 0), 'a record beyond its disk');
      at = next.next;
    }
    return `segment ${which} ${found}`;
  },
};

const nbdServer = new Parrot(join(folder, 'nbd.sock'));

function nbdAnswers(): Buffer {
  const greeting = Buffer.alloc(18);
  greeting.write('NBDMAGICIHAVEOPT', 0, 'latin1');
  greeting.writeUInt16BE(3, 16);
  const option = (number: number, type: number, data: Buffer) => {
    const head = Buffer.alloc(20);
    head.writeBigUInt64BE(nbd.magics.optionReply, 0);
    head.writeUInt32BE(number, 8);
    head.writeUInt32BE(type, 12);
    head.writeUInt32BE(data.length, 16);
    return Buffer.concat([head, data]);
  };
  const info = Buffer.alloc(12);
  info.writeBigUInt64BE(8192n, 2);
  const context = Buffer.concat([Buffer.of(0, 0, 0, 1), text('qemu:dirty-bitmap:note')]);
  const reply = (type: number, cookie: number, payload: Buffer) => {
    const head = Buffer.alloc(20);
    head.writeUInt32BE(nbd.magics.structuredReply, 0);
    head.writeUInt16BE(1, 4);
    head.writeUInt16BE(type, 6);
    head.writeBigUInt64BE(BigInt(cookie), 8);
    head.writeUInt32BE(payload.length, 16);
    return Buffer.concat([head, payload]);
  };
  const status = Buffer.from([0, 0, 0, 1, 0, 0, 16, 0, 0, 0, 0, 1, 0, 0, 16, 0, 0, 0, 0, 0]);
  return Buffer.concat([
    greeting,
    option(nbd.options.structuredReply, nbd.optionReplies.ack, Buffer.alloc(0)),
    option(nbd.options.setMetaContext, nbd.optionReplies.metaContext, context),
    option(nbd.options.setMetaContext, nbd.optionReplies.ack, Buffer.alloc(0)),
    option(nbd.options.go, nbd.optionReplies.info, info),
    option(nbd.options.go, nbd.optionReplies.ack, Buffer.alloc(0)),
    reply(nbd.replyTypes.blockStatus, 1, status),
    reply(nbd.replyTypes.offsetData, 2, Buffer.concat([Buffer.alloc(8), Buffer.alloc(4096, 9)])),
  ]);
}

const nbdClient: Target = {
  name: 'nbd-client',
  seeds: [nbdAnswers(), nbdAnswers().subarray(0, 18)],
  reaches: [/taken 1/, /no greeting/, /no size/, /no bitmap/, /odd block status/, /was refused/, /was closed/],
  feed: async (input) => {
    nbdServer.answer = input;
    await nbdServer.open();
    let ranges = 0;
    const how = await said(async () => {
      const client = await NbdClient.connect(join(folder, 'nbd.sock'), { exportName: 'disk0', bitmap: 'note' });
      try {
        for await (const { start, end } of client.changed()) {
          assert.ok(start <= end && end <= client.sizeBytes, 'a range beyond the disk');
          ranges += 1;
          if (ranges > 100) break;
        }
        const data = await client.read(0, 4096);
        assert.ok(data === undefined || data.length === 4096);
        return data;
      } finally {
        client.close();
      }
    });
    return `${how} ${ranges}`;
  },
};

export const storedTargets: readonly Target[] = [state, template, records, etcd, replica, nbdClient];

export async function closeStored(): Promise<void> {
  await etcdServer.close();
  await nbdServer.close();
  rmSync(folder, { recursive: true, force: true });
}
