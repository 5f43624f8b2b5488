// The proxy between real stacks: Linux clients and the demo's guest, over IPv4 and IPv6, bulk both ways and connections
// that the guest opens, with the primary killed in the middle. Everything on the clients' link is recorded where they
// stand, and judged from that file alone: by Debian's tshark, and by our own parser for what tshark has no word for. So
// is what each node released, from its own files (network.pcap).
//
// Where there is no network namespace with a TAP the clients come through the gateway, over IPv4, and only the nodes'
// files are judged.

import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { downloadSha256 } from '../../guest/big-file.ts';
import { buildGuest, type Guest } from '../../guest/build.ts';
import { readyLine } from '../../guest/recipe.ts';
import type { NodeStatus } from '../../src/api/node-status.ts';
import { systemClock } from '../../src/base/clock.ts';
import { checkSpec } from '../../src/config/spec.ts';
import type { Client } from '../../src/demo/clients/client.ts';
import type { WantedClient } from '../../src/demo/clients/clients.ts';
import { servedBy } from '../../src/demo/clients/clients.ts';
import { type Entrance, openEntrance } from '../../src/demo/clients/entrance.ts';
import { consoleSays } from '../../src/demo/console.ts';
import { injectInto } from '../../src/demo/faults.ts';
import { captureTestPackages, ensurePackages } from '../../src/host/packages.ts';
import { withoutLate } from '../../src/lan/turns.ts';
import { LocalPair } from '../../src/local/pair.ts';
import { buildTcp } from '../../src/packet/build.ts';
import { FrameView } from '../../src/packet/frame-view.ts';
import { pcapHeader, pcapRecord } from '../../src/packet/pcap.ts';
import { distance } from '../../src/packet/sequence.ts';
import { tcpFlag } from '../../src/packet/tcp.ts';
import { assertValid } from '../../src/proxy/testbed/testbed.ts';
import { type Objection, objections } from './tshark.ts';

const guestMac = '52:54:00:12:34:56';

before(() => ensurePackages(captureTestPackages, { why: 'have recordings judged by tshark' }));

async function inFolder(work: (folder: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'colo-pcap-'));
  try {
    await work(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function framesOf(path: string): Uint8Array[] {
  const bytes = readFileSync(path);
  const frames: Uint8Array[] = [];
  for (let at = pcapHeader.length; at + 16 <= bytes.length; ) {
    const length = bytes.readUInt32LE(at + 8);
    frames.push(bytes.subarray(at + 16, at + 16 + length));
    at += 16 + length;
  }
  return frames;
}

function writeRecording(path: string, frames: readonly Uint8Array[]): void {
  writeFileSync(path, Buffer.concat([pcapHeader, ...frames.map((frame, index) => pcapRecord(frame, index))]));
}

test('tshark objects to a wrong checksum, to an acknowledgement of unseen bytes and to a repeated segment', async () => {
  await inFolder(async (folder) => {
    const path = join(folder, 'made.pcap');
    const guest = { mac: Uint8Array.of(2, 0, 0, 0, 0, 1), ip: 0x0a00020f, port: 80 };
    const client = { mac: Uint8Array.of(2, 0, 0, 0, 0, 2), ip: 0x0a000202, port: 4711 };
    const payload = Buffer.from('hello');
    const segment = { sequence: 1000, ack: 2000, flags: tcpFlag.psh, payload };
    const damaged = buildTcp(guest, client, { ...segment, sequence: 1005 });
    damaged[damaged.length - 1] = 0xff;
    const frames = [
      buildTcp(guest, client, segment),
      buildTcp(client, guest, { sequence: 2000, ack: 1005, flags: tcpFlag.ack }),
      damaged,
      buildTcp(client, guest, { sequence: 2000, ack: 5000, flags: tcpFlag.ack }),
      buildTcp(guest, client, segment),
    ];
    writeRecording(path, frames);
    const found = await objections(path);
    const numbers = (holds: (each: Objection) => boolean) => found.filter(holds).map(({ number }) => number);
    assert.deepEqual(
      numbers((each) => each.isDamaged),
      ['3'],
    );
    assert.deepEqual(
      numbers((each) => each.acknowledgesUnseen),
      ['4'],
    );
    assert.deepEqual(
      numbers((each) => each.isRetransmission),
      ['5'],
    );
  });
});

test('real clients over IPv4 and IPv6, calls by the guest, bulk both ways, the primary killed: all they are sent is sound', {
  timeout: 900_000,
}, async (context) => {
  await inFolder(async (folder) => {
    const entrance = await openEntrance({ served: servedBy(smallerGuest(await buildGuest())), clock: systemClock });
    if (entrance.ipv6Refusal !== undefined) context.diagnostic(entrance.text);
    try {
      await underFire(entrance, folder);
    } finally {
      await entrance.close();
    }
    for (const node of ['a', 'b']) await judgeReleased(folder, node);
    if (entrance.kind === 'link') await judgeLink(join(folder, 'link.pcap'), entrance.ipv6Refusal === undefined);
  });
});

const bigMebibytes = 4;

function smallerGuest(guest: Guest): Guest {
  const downloadBytes = bigMebibytes << 20;
  const files = { ...guest.files, downloadBytes, downloadSha256: downloadSha256(bigMebibytes) };
  return { ...guest, files, cmdline: `${guest.cmdline} colo.big=${bigMebibytes}` };
}

/** Clients talk, the primary dies, clients go on; everything is in files of `folder` afterwards. */
async function underFire(entrance: Entrance, folder: string): Promise<void> {
  const guest = smallerGuest(await buildGuest());
  const input = { vm: 'proxy-pcap', boot: { guest: 'demo' as const }, network: { mac: guestMac, pcap: folder } };
  const boot = { kernel: guest.kernel, initrd: guest.initrd, cmdline: guest.cmdline };
  const pair = await LocalPair.start({ spec: checkSpec(input, 'test'), boot, clock: systemClock, ...entrance.network });
  const clients: Client[] = [];
  try {
    await consoleSays(pair.a, { text: readyLine, path: `${pair.logDir}/a.serial`, timeoutMs: 240_000 });
    await pair.startSecondary();
    await untilPrimary(pair, 'protected', (one) => one.protected);
    await entrance.join(pair.lanPath, join(folder, 'link.pcap'));
    for (const wanted of withUpload(entrance.clients)) clients.push(await entrance.start(wanted));
    // A starved host may lose the protection for a moment: what is judged is what was compared.
    // It may even have turned the pair round.
    const isCompared = (one: NodeStatus) =>
      one.role === 'primary' && one.protected && (one.released?.byMatch ?? 0) > 2000;
    const all = await untilPrimary(pair, 'compared', isCompared);
    const victim = all.find(isCompared)?.node === 'b' ? 'b' : 'a';
    await injectInto(pair[victim], 'primary-kill', () => 0);
    await untilPrimary(pair, 'taken over', (one) => one.node !== victim && one.failover !== null);
    const spoken = () => pair.lan.spokenBy(guestMac);
    const framesThen = spoken().at(-1)?.frames ?? 0;
    await pair.until('served by the survivor', 240_000, () => (spoken().at(-1)?.frames ?? 0) > framesThen + 1000);
    const reports = await Promise.all(clients.map((client) => client.finish(120_000)));
    for (const report of reports) assert.ok(report.ok && report.connections === 1, `${report.name}: ${report.detail}`);
    assert.equal(withoutLate(spoken()).turns.length, pair.owners.turns.length, 'turns of speaking');
  } finally {
    for (const client of clients) client.abort();
    await pair.stop();
  }
}

/** Bulk to the guest beside the bulk from it, where redis is reached. */
function withUpload(clients: readonly WantedClient[]): WantedClient[] {
  const redis = clients.find(({ kind }) => kind === 'redis');
  return redis === undefined
    ? [...clients]
    : [{ ...redis, kind: 'upload', name: 'upload', paceMs: 0 } as WantedClient, ...clients];
}

function untilPrimary(pair: LocalPair, what: string, holds: (one: NodeStatus) => boolean): Promise<NodeStatus[]> {
  return pair.until(what, 240_000, (all) => all.some((one) => one.role === 'primary' && holds(one)));
}

const isUnsound = (each: Objection) => each.isDamaged || each.isMalformed;

/** Only one direction: whether it fits to what was sent cannot be seen here. */
async function judgeReleased(folder: string, node: string): Promise<void> {
  const paths = ['.old.pcap', '.pcap'].map((ending) => join(folder, `proxy-pcap-${node}-released${ending}`));
  const frames = paths.filter((each) => existsSync(each)).flatMap((each) => framesOf(each));
  // Written anew: the last record of a killed node may be half a one, which tshark takes for an error.
  const whole = join(folder, `released-by-${node}.pcap`);
  writeRecording(whole, frames);
  assert.deepEqual((await objections(whole)).filter(isUnsound), [], `what node ${node} released`);
  assert.ok(frames.length > 100);
  assert.ok(follow(frames, true).connections > 0);
}

async function judgeLink(path: string, hasIpv6: boolean): Promise<void> {
  const said = (await objections(path)).filter(({ from }) => from === guestMac);
  const numbers = (holds: (each: Objection) => boolean) => said.filter(holds).map(({ number }) => Number(number));
  assert.deepEqual(numbers(isUnsound), [], 'frames with a wrong checksum, or malformed');
  assert.deepEqual(
    numbers((each) => each.acknowledgesUnseen),
    [],
    'acknowledgements of what no client has sent',
  );
  assert.deepEqual(
    numbers((each) => each.hasGapBefore),
    [],
    'segments behind bytes that no client was given',
  );
  const { segments, families, calls } = follow(
    framesOf(path).filter((frame) => macOf(frame) === guestMac),
    false,
  );
  const again = numbers((each) => each.isRetransmission).length;
  // A survivor says again what may not have arrived: at most a window of each connection, once.
  assert.ok(again < segments / 10, `${again} of ${segments} data segments are retransmissions`);
  assert.ok(segments > 1000, `${segments} segments`);
  assert.deepEqual([...families].sort(), hasIpv6 ? ['IPv4', 'IPv6'] : ['IPv4']);
  assert.equal(calls, hasIpv6 ? 2 : 1, 'connections that the guest opened');
}

function macOf(frame: Uint8Array): string {
  return [...frame.subarray(6, 12)].map((byte) => byte.toString(16).padStart(2, '0')).join(':');
}

interface Followed {
  /** Connections, and those that the sender of the frames opened. */
  connections: number;
  calls: number;
  /** With payload. */
  segments: number;
  families: Set<string>;
}

/**
 * Follows the TCP connections of a sender: their timestamps never go back, nor do the acknowledgements of one node. (A
 * survivor says again what may not have left, with the acknowledgements that it had; TSval is brought up to date.)
 */
function follow(frames: readonly Uint8Array[], isOneNode: boolean): Followed {
  const seen = new Map<string, { ack: number; time: number | undefined }>();
  const opened = new Set<string>();
  const families = new Set<string>();
  let segments = 0;
  for (const frame of frames) {
    assertValid(frame);
    const view = new FrameView().parse(frame);
    if (view.kind !== 'tcp') continue;
    const name = JSON.stringify(view.key);
    if (view.isSyn && !view.hasAck) opened.add(name);
    if (view.payloadBytes > 0) segments += 1;
    families.add(view.isIpv6 ? 'IPv6' : 'IPv4');
    if (view.isReset || !view.hasAck) continue;
    const time = view.timestampsAt === 0 ? undefined : view.timestamp;
    const before = view.isSyn ? undefined : seen.get(name);
    seen.set(name, { ack: view.ack, time });
    if (before === undefined) continue;
    assert.ok(!isOneNode || distance(view.ack, before.ack) >= 0, `the acknowledgement of ${name} goes back`);
    if (before.time !== undefined && time !== undefined)
      assert.ok(distance(time, before.time) >= 0, `TSval of ${name} goes back`);
  }
  return { connections: seen.size, calls: opened.size, segments, families };
}
