// The packet formats: what we build is valid, what we update stays valid, and nothing that comes from outside throws.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { announce } from './arp.ts';
import { buildIcmpEcho, buildTcp, buildUdp } from './build.ts';
import { checksum, replace16, replace32 } from './checksum.ts';
import { FlowKey, flowKeyBytes, flowText, packFlowKey, scatterHashes, unpackFlowKey } from './flow-key.ts';
import { FrameView } from './frame-view.ts';
import { parseIp } from './ipv4.ts';
import { pcapHeader, pcapRecord } from './pcap.ts';
import { synOptions, tcpFlag } from './tcp.ts';

const guest = { mac: Uint8Array.of(2, 0, 0, 0, 0, 1), ip: parseIp('10.0.2.15') ?? 0, port: 80 };
const client = { mac: Uint8Array.of(2, 0, 0, 0, 0, 2), ip: parseIp('10.0.2.2') ?? 0, port: 4711 };

test('a replaced field leaves the same checksum as summing anew, at even and odd offsets', () => {
  const bytes = fc.uint8Array({ minLength: 24, maxLength: 64 });
  fc.assert(
    fc.property(bytes, fc.nat({ max: 17 }), fc.nat({ max: 0xffffffff }), (content, offset, value) => {
      const at = 2 + offset;
      content[0] = 0;
      content[1] = 0;
      const sum = checksum(content, 0, content.length);
      content[0] = sum >>> 8;
      content[1] = sum;
      replace32(content, 0, 0, at, value);
      assert.equal(checksum(content, 0, content.length) % 0xffff, 0);
      replace16(content, 0, 2, value & 0xffff);
      assert.equal(checksum(content, 0, content.length) % 0xffff, 0);
    }),
  );
});

test('a view of a built segment reads what was built', () => {
  const options = Uint8Array.of(2, 4, 5, 180, 1, 3, 3, 7, 4, 2, 1, 1);
  const payload = new TextEncoder().encode('hello');
  const frame = buildTcp(guest, client, { sequence: 7, ack: 9, flags: tcpFlag.psh, window: 501, options, payload });
  const view = new FrameView().parse(frame);
  assert.deepEqual(
    [view.kind, view.sequence, view.ack, view.window, view.payloadBytes, view.sourcePort, view.targetPort],
    ['tcp', 7, 9, 501, 5, 80, 4711],
  );
  const { kinds, mss, windowScale } = synOptions(frame, view.transportAt);
  assert.deepEqual([kinds, mss, windowScale], [(1 << 2) | (1 << 3) | (1 << 4), 1460, 7]);
});

test('payload ends where the IP header says, not where a padded frame ends', () => {
  const frame = buildTcp(guest, client, { sequence: 1, ack: 1, flags: 0 });
  const padded = new Uint8Array(60);
  padded.set(frame);
  assert.equal(new FrameView().parse(padded).payloadBytes, 0);
});

test('UDP, ICMP and ARP are known by their meaning', () => {
  const view = new FrameView();
  assert.equal(view.parse(buildUdp(guest, client, Uint8Array.of(1, 2, 3))).kind, 'udp');
  assert.equal(view.contentTo - view.contentFrom, 3);
  assert.equal(view.parse(buildIcmpEcho(guest, client, { reply: true, id: 3, sequence: 4 })).kind, 'icmp');
  assert.equal(view.parse(announce(guest.mac, guest.ip)).kind, 'arp');
  assert.equal(view.refusal, undefined);
});

test('any bytes are parsed without throwing, and no field points outside the frame', () => {
  const valid = buildTcp(guest, client, { sequence: 1, ack: 1, flags: 0, payload: new Uint8Array(40) });
  const view = new FrameView();
  const mutation = fc.array(fc.tuple(fc.nat({ max: 90 }), fc.nat({ max: 255 })), { maxLength: 6 });
  fc.assert(
    fc.property(mutation, fc.nat({ max: valid.length }), (changes, length) => {
      const frame = Uint8Array.from(valid.subarray(0, length));
      for (const [at, value] of changes) if (at < frame.length) frame[at] = value;
      view.parse(frame);
      const end = view.kind === 'tcp' ? view.payloadAt + view.payloadBytes : view.contentTo;
      assert.ok(end <= frame.length);
      if (view.kind === 'tcp') synOptions(frame, view.transportAt);
    }),
    { numRuns: 3000 },
  );
});

test('a flow key survives its packed form and names the client first', () => {
  const { key } = new FrameView().parse(buildTcp(guest, client, { sequence: 1, ack: 1, flags: 0 }));
  const bytes = new Uint8Array(flowKeyBytes.ipv4);
  packFlowKey(key, bytes, 0);
  assert.deepEqual(unpackFlowKey(bytes, 0, false, 6), key);
  assert.ok(new FlowKey().reverse(new FlowKey().reverse(key)).equals(key));
  assert.equal(unpackFlowKey(bytes.subarray(1), 0, false, 6), undefined);
  assert.equal(flowText(key, 'tcp'), '10.0.2.2:4711 > 10.0.2.15:80 tcp');
});

test('a pcap record carries length and time', () => {
  const record = pcapRecord(new Uint8Array(10), 1500.25);
  const view = new DataView(record.buffer);
  assert.deepEqual([view.getUint32(0, true), view.getUint32(4, true), view.getUint32(8, true)], [1, 500250000, 10]);
  assert.equal(pcapHeader.length, 24);
});

test('who does not know the numbers of a process cannot choose flows of one hash', () => {
  const flow = (address: number, port: number) => {
    const key = new FlowKey();
    key.b0 = address;
    key.ports = (80 << 16) | port;
    key.protocol = (4 << 16) | 6;
    return key;
  };
  // Addresses and ports whose hashes are equal with the numbers that everybody can read.
  const byHash = new Map<number, FlowKey>();
  const equal: [FlowKey, FlowKey][] = [];
  for (let address = 0; equal.length < 100; address += 1) {
    const key = flow(address, address & 0xffff);
    const other = byHash.get(key.hash());
    if (other !== undefined) equal.push([other, key]);
    byHash.set(key.hash(), key);
  }
  scatterHashes([0x12345678, 0x9abcdef0, 0x0fedcba9, 0x87654321, 0x13579bdf]);
  const still = equal.filter(([one, other]) => one.hash() === other.hash());
  assert.ok(still.length < 5, `${still.length} of 100`);
});
