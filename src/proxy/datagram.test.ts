// What is not TCP: datagrams, ICMP by its meaning, fragments, neighbours, and what a bypass rule names.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { buildFragments, buildIcmp, buildIcmpEcho, buildTcp, buildUdp } from '../packet/build.ts';
import { read32 } from '../packet/checksum.ts';
import { FlowKey } from '../packet/flow-key.ts';
import { FrameView } from '../packet/frame-view.ts';
import { IcmpQuote } from '../packet/icmp.ts';
import { tcpFlag } from '../packet/tcp.ts';
import { proxyLimits } from './limits.ts';
import { allEnds, assertValid, Bed, bytes, client, type Ends, guest, overIpv4, overIpv6 } from './testbed/testbed.ts';

function protectedBed(): Bed {
  const bed = new Bed();
  bed.protect();
  return bed;
}

const contents = (bed: Bed) =>
  bed.left().map(({ frame, contentFrom, contentTo }) => Buffer.from(frame.subarray(contentFrom, contentTo)).toString());

test('equal datagrams count: two of the primary need two of the secondary', () => {
  for (const ends of allEnds) {
    const bed = protectedBed();
    const frame = buildUdp(ends.guest, ends.client, bytes('again'));
    bed.pvm(frame);
    bed.pvm(frame);
    bed.svm(frame);
    assert.equal(contents(bed).length, 1, ends.name);
    bed.svm(frame);
    assert.equal(contents(bed).length, 1, ends.name);
  }
});

test('a burst of the secondary beyond what the primary compares is said at a takeover, whole and in order', () => {
  const bed = protectedBed();
  const count = proxyLimits.datagramsAheadMax + 100;
  const said = Array.from({ length: count }, (_, index) => buildUdp(guest, client, bytes(`datagram ${index}`)));
  for (const frame of said) bed.svm(frame);
  // What is compared still leaves, and is not said again.
  bed.pvm(said[count - 1] ?? assert.fail());
  assert.deepEqual(contents(bed), [`datagram ${count - 1}`]);
  const { resend } = bed.secondary.takeover(bed.now);
  assert.deepEqual(
    resend.map((frame) => Buffer.from(frame)),
    said.slice(0, -1).map((frame) => Buffer.from(frame)),
  );
});

test('the same datagram to another port, address or VLAN is no match', () => {
  const frame = (ends: Ends, port = 4711) => buildUdp(ends.guest, { ...ends.client, port }, bytes('x'));
  for (const ends of allEnds) {
    const bed = protectedBed();
    bed.pvm(frame(ends));
    bed.svm(frame(ends, 4712));
    for (const other of allEnds) if (other !== ends) bed.svm(frame(other));
    assert.equal(bed.left().length, 0, ends.name);
    bed.svm(frame(ends));
    assert.equal(bed.left().length, 1, ends.name);
  }
});

test('an ICMP message of another identifier, type or content is no match', () => {
  for (const ends of [overIpv4, overIpv6]) {
    const echo = { reply: true, id: 4, sequence: 9 };
    const frame = (change: Partial<typeof echo>) => buildIcmpEcho(ends.guest, ends.client, { ...echo, ...change });
    const bed = protectedBed();
    bed.pvm(frame({}));
    for (const other of [{ id: 5 }, { sequence: 10 }, { reply: false }]) bed.svm(frame(other));
    assert.equal(bed.left().length, 0, ends.name);
    bed.svm(frame({}));
    assert.equal(bed.left().length, 1, ends.name);
  }
});

/** The error "port unreachable" about a frame, from its receiver. */
function unreachable({ guest: from, client: to }: Ends, about: Uint8Array): Uint8Array {
  const body = Uint8Array.from([0, 0, 0, 0, ...about.subarray(14)]);
  return buildIcmp(from, to, typeof from.ip === 'number' ? { type: 3, code: 3, body } : { type: 1, code: 4, body });
}

test('an ICMP error is compared by what it quotes', () => {
  for (const ends of [overIpv4, overIpv6]) {
    const asked = (content: string) => unreachable(ends, buildUdp(ends.client, ends.guest, bytes(content)));
    const bed = protectedBed();
    bed.pvm(asked('a question'));
    bed.svm(asked('a questiom'));
    assert.equal(bed.left().length, 0, ends.name);
    bed.svm(asked('a question'));
    assert.equal(bed.left().length, 1, ends.name);
  }
});

test('an ICMP error about a segment carries the numbers that its reader knows', () => {
  for (const ends of [overIpv4, overIpv6]) {
    const bed = protectedBed();
    bed.connect(1000, 9000, 5000, ends);
    bed.left();
    const toClient = buildTcp(ends.guest, ends.client, { sequence: 1001, ack: 5001, flags: 0, payload: bytes('big') });
    bed.client(unreachable({ ...ends, guest: ends.client, client: ends.guest }, toClient));
    assert.equal(quotedSequence(bed.toPrimaryGuest.at(-1)), 1001);
    assert.equal(quotedSequence(bed.toSecondaryGuest.at(-1)), 9001);
    const toGuest = (ack: number) => buildTcp(ends.client, ends.guest, { sequence: 5001, ack, flags: 0 });
    bed.pvm(unreachable(ends, toGuest(1001)));
    bed.svm(unreachable(ends, toGuest(9001)));
    assert.equal(bed.left().length, 1, 'the two errors are equal in client space');
  }
});

function quotedSequence(frame: Uint8Array | undefined): number {
  assert.ok(frame !== undefined);
  const view = new FrameView().parse(frame);
  const quote = new IcmpQuote();
  assert.ok(quote.parse(frame, view.quoteAt, view.endAt, view.isIpv6, new FlowKey()));
  assertValid(frame);
  assertQuoteValid(frame, view, quote.tcpAt);
  return read32(frame, quote.tcpAt + 4);
}

/** The quoted segment is a right one itself, when it is put on the network again. */
function assertQuoteValid(frame: Uint8Array, { ipAt, quoteAt }: FrameView, tcpAt: number): void {
  const alone = Uint8Array.from([...frame.subarray(0, ipAt), ...frame.subarray(quoteAt)]);
  assert.ok(tcpAt > quoteAt);
  assertValid(alone);
}

test('a neighbour is solicited by both, whatever nonce each has drawn', () => {
  const { guest: from, client: to } = overIpv6;
  const solicitation = (nonce: number, target = 2) => {
    const body = new Uint8Array(4 + 16 + 8 + 8);
    body.set([0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, target], 4);
    body.set([1, 1, ...from.mac], 20);
    body.set([14, 1, nonce, 2, 3, 4, 5, 6], 28);
    return buildIcmp(from, to, { type: 135, code: 0, body });
  };
  const bed = protectedBed();
  bed.pvm(solicitation(1));
  bed.svm(solicitation(2, 3));
  assert.equal(bed.left().length, 0, 'another target');
  bed.svm(solicitation(2));
  assert.equal(bed.left().length, 1);
});

test('fragments are compared as the packet that they are, and leave as they came', () => {
  for (const ends of [overIpv4, overIpv6]) {
    const content = 'abcdefghij'.repeat(40);
    const whole = buildUdp(ends.guest, ends.client, bytes(content));
    const ours = buildFragments(whole, 77, 160);
    const [first, second, third] = ours;
    assert.ok(first !== undefined && second !== undefined && third !== undefined);
    const bed = protectedBed();
    for (const fragment of [second, first, third]) bed.pvm(fragment);
    const [last, ...others] = buildFragments(whole, 9999, 96).reverse();
    for (const fragment of others) bed.svm(fragment);
    assert.equal(bed.left().length, 0, ends.name);
    assert.ok(last !== undefined);
    bed.svm(last);
    assert.deepEqual(
      bed.network.map((frame) => Buffer.from(frame).toString('hex')),
      [second, first, third].map((frame) => Buffer.from(frame).toString('hex')),
      ends.name,
    );
    assert.equal(bed.primary.counters.heldBytes, 0);
    assert.equal(bed.wanted.length, 0);
    assert.equal(bed.secondary.takeover(bed.now).resend.length, 0, 'all of the secondary are confirmed');
  }
});

test('fragments of which one differs leave by a commit alone, in order', () => {
  const build = (content: string) => buildFragments(buildUdp(guest, client, bytes(content)), 5, 64);
  const bed = protectedBed();
  const ours = build('x'.repeat(200));
  for (const fragment of ours) bed.pvm(fragment);
  for (const fragment of build(`${'x'.repeat(150)}y${'x'.repeat(49)}`)) bed.svm(fragment);
  bed.pass(30);
  assert.equal(bed.left().length, 0);
  assert.deepEqual([bed.wanted[0]?.kind, bed.primary.divergences()[0]?.offset], ['payload', 150]);
  bed.checkpoint();
  assert.equal(bed.left().length, ours.length);
  assert.equal(bed.primary.counters.heldFrames, 0);
});

test('fragments of a packet that never becomes whole leave by a commit, and are not held without bound', () => {
  const bed = protectedBed();
  bed.pass(1000);
  const [first] = buildFragments(buildUdp(guest, client, bytes('x'.repeat(200))), 5, 64);
  assert.ok(first !== undefined);
  bed.pvm(first);
  bed.svm(first);
  bed.pass(201);
  assert.deepEqual(
    bed.wanted.map(({ kind }) => kind),
    ['timeout'],
  );
  bed.checkpoint();
  assert.equal(bed.left().length, 1);
  assert.equal(bed.primary.counters.heldFrames, 0);
  for (let id = 0; id < 70; id += 1) {
    const [alone] = buildFragments(buildUdp(guest, client, bytes('x'.repeat(200))), 100 + id, 64);
    bed.pvm(alone ?? new Uint8Array(0));
  }
  assert.equal(bed.wanted.at(-1)?.kind, 'limit');
});

test('what a bypass rule names leaves uncompared, and of the secondary nothing leaves', () => {
  const bypass = [{ protocol: 'udp' as const, address: '10.0.2.2', port: 4711 }];
  const bed = new Bed({ more: { bypass } });
  bed.protect();
  const named = buildUdp(guest, client, bytes('metrics'));
  const others = [
    buildUdp(guest, { ...client, port: 4712 }, bytes('other port')),
    buildUdp(guest, { ...client, ip: 0x0a000203 }, bytes('other address')),
    buildTcp(guest, client, { sequence: 1, ack: 1, flags: tcpFlag.psh, payload: bytes('other protocol') }),
  ];
  for (const frame of [named, ...others]) bed.pvm(frame);
  assert.deepEqual(contents(bed), ['metrics']);
  bed.svm(named);
  assert.equal(bed.secondary.counters.dropped.bypass, 1);
  assert.equal(bed.secondary.takeover(bed.now).resend.length, 0);
  assert.deepEqual(bed.primary.bypassed(), [{ rule: 'udp 10.0.2.2 port 4711', frames: 1, bytes: named.length }]);
});

test('without a rule nothing is bypassed', () => {
  const bed = protectedBed();
  bed.pvm(buildUdp(guest, client, bytes('metrics')));
  assert.equal(bed.left().length, 0);
  assert.deepEqual(bed.primary.bypassed(), []);
});

test('what the secondary says ahead in all flows together is bounded, fragments that miss others among it', () => {
  const bed = protectedBed();
  const piece = (id: number) => buildFragments(buildUdp(guest, client, new Uint8Array(60_000)), id, 30_000)[0];
  const count = Math.ceil(proxyLimits.datagramsAheadBytesAllMax / 30_000) + 50;
  for (let id = 0; id < count; id += 1) bed.svm(piece(id) ?? assert.fail());
  const { aheadBytes } = bed.primary.counters;
  assert.ok(aheadBytes > proxyLimits.datagramsAheadBytesAllMax / 2);
  assert.ok(aheadBytes <= proxyLimits.datagramsAheadBytesAllMax);
  // It is compared again when some of it has had its time.
  const late = buildUdp({ ...guest, port: 54 }, client, bytes('late'));
  bed.pass(proxyLimits.datagramAheadMs);
  assert.equal(bed.primary.counters.aheadBytes, 0);
  bed.svm(late);
  bed.pvm(late);
  assert.equal(bed.left().length, 1);
});
