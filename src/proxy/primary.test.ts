// One test per rule of comparison, each with both proxies and frames as the guests would send them.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { announce } from '../packet/arp.ts';
import { buildIcmpEcho, buildUdp } from '../packet/build.ts';
import { FrameView } from '../packet/frame-view.ts';
import { tcpFlag } from '../packet/tcp.ts';
import { proxyLimits } from './limits.ts';
import { Bed, bytes, client, fromGuest, guest, synOptionBytes, text, toGuest } from './testbed/testbed.ts';

const pIsn = 1_000_000;
const sIsn = 7_000_000;

function connected(): Bed {
  const bed = new Bed();
  bed.protect();
  bed.connect(pIsn, sIsn);
  bed.left();
  return bed;
}

const data = (isn: number, at: number, content: string, more: { flags?: number; ack?: number; window?: number } = {}) =>
  fromGuest({
    sequence: (isn + 1 + at) >>> 0,
    ack: more.ack ?? 5001,
    flags: more.flags ?? tcpFlag.psh,
    window: more.window ?? 1000,
    payload: bytes(content),
  });

const pureAck = (isn: number, at: number, ack: number, window = 1000) =>
  fromGuest({ sequence: isn + 1 + at, ack, flags: 0, window });

test('alone, everything passes; from the first capture on nothing does', () => {
  const bed = new Bed();
  bed.pvm(data(pIsn, 0, 'a'));
  assert.equal(bed.left().length, 1);
  const { epoch } = bed.primary.capture(bed.now);
  assert.equal(epoch, 1);
  bed.pvm(data(pIsn, 1, 'b'));
  assert.equal(bed.left().length, 0);
  bed.primary.abort(1, bed.now);
  assert.equal(text(bed.left()[0] ?? assert.fail()), 'b');
});

test('a SYN-ACK waits for that of the secondary, and leaves as the primary sent it', () => {
  const bed = new Bed();
  bed.protect();
  bed.client(toGuest({ sequence: 5000, flags: tcpFlag.syn, options: synOptionBytes }));
  bed.pvm(fromGuest({ sequence: pIsn, ack: 5001, flags: tcpFlag.syn, options: synOptionBytes }));
  assert.equal(bed.left().length, 0);
  bed.svm(fromGuest({ sequence: sIsn, ack: 5001, flags: tcpFlag.syn, options: synOptionBytes }));
  assert.deepEqual(
    bed.left().map((view) => view.sequence),
    [pIsn],
  );
});

test('different options of the two SYN-ACKs are a divergence', () => {
  const bed = new Bed();
  bed.protect();
  bed.client(toGuest({ sequence: 5000, flags: tcpFlag.syn, options: synOptionBytes }));
  bed.svm(fromGuest({ sequence: sIsn, ack: 5001, flags: tcpFlag.syn, options: Uint8Array.of(2, 4, 5, 0) }));
  bed.pvm(fromGuest({ sequence: pIsn, ack: 5001, flags: tcpFlag.syn, options: synOptionBytes }));
  assert.deepEqual(
    bed.wanted.map(({ kind }) => kind),
    ['options'],
  );
  assert.equal(bed.left().length, 0);
});

test('equal bytes leave, however the two sides cut them', () => {
  const bed = connected();
  bed.svm(data(sIsn, 0, 'hel'));
  bed.pvm(data(pIsn, 0, 'hello'));
  assert.deepEqual(bed.left().map(text), ['hel']);
  bed.svm(data(sIsn, 3, 'lo wor'));
  const rest = bed.left();
  assert.deepEqual(rest.map(text), ['lo']);
  assert.equal(rest[0]?.sequence, pIsn + 4);
  bed.pvm(data(pIsn, 5, ' wor'));
  assert.deepEqual(bed.left().map(text), [' wor']);
  assert.equal(bed.primary.counters.dataByMatch, 2);
  assert.equal(bed.wanted.length, 0);
});

test('the secondary may send out of order', () => {
  const bed = connected();
  bed.pvm(data(pIsn, 0, 'abcdef'));
  bed.svm(data(sIsn, 3, 'def'));
  assert.equal(bed.left().length, 0);
  bed.svm(data(sIsn, 0, 'abc'));
  assert.equal(bed.left().map(text).join(''), 'abcdef');
});

test('a differing byte never leaves, and is recorded with its place', () => {
  const bed = connected();
  bed.pvm(data(pIsn, 0, 'time 12'));
  bed.svm(data(sIsn, 0, 'time 13'));
  assert.deepEqual(bed.left().map(text), ['time 1']);
  const [record] = bed.primary.divergences();
  assert.equal(record?.connection, '10.0.2.2:4711 > 10.0.2.15:80 tcp');
  assert.deepEqual([record?.kind, record?.offset, record?.primary, record?.secondary], ['payload', 6, '32', '33']);
  assert.deepEqual(bed.wanted.length, 1);
  bed.checkpoint();
  assert.equal(text(bed.left().at(-1) ?? assert.fail()).at(-1), '2');
});

test('an acknowledgement is never beyond what both have acknowledged', () => {
  const bed = connected();
  bed.pvm(pureAck(pIsn, 0, 5101));
  assert.equal(bed.left().length, 0);
  bed.svm(pureAck(sIsn, 0, 5051));
  assert.deepEqual(
    bed.left().map((view) => view.ack),
    [5051],
  );
  bed.svm(pureAck(sIsn, 0, 5101));
  assert.deepEqual(
    bed.left().map((view) => view.ack),
    [5101],
  );
  bed.pvm(pureAck(pIsn, 0, 5101));
  assert.equal(bed.left().length, 1, 'a duplicate ACK passes');
});

test('data leaves with its acknowledgement clamped, and the rest is said later', () => {
  const bed = connected();
  bed.svm(data(sIsn, 0, 'x', { ack: 5001 }));
  bed.pvm(data(pIsn, 0, 'x', { ack: 5101 }));
  assert.deepEqual(
    bed.left().map((view) => [view.ack, text(view)]),
    [[5001, 'x']],
  );
  bed.svm(pureAck(sIsn, 1, 5101));
  const [ack] = bed.left();
  assert.deepEqual([ack?.ack, ack?.sequence, ack?.payloadBytes], [5101, pIsn + 2, 0]);
});

test('no right edge of a window beyond that of either guest', () => {
  const bed = connected();
  const edge = (5001 + (65535 << 0)) >>> 0;
  bed.svm(pureAck(sIsn, 0, 5101, 600));
  bed.pvm(pureAck(pIsn, 0, 5101, 1000));
  const [view] = bed.left();
  assert.ok(view !== undefined && view.ack === 5101);
  const right = view.ack + view.window * 128;
  assert.ok(right <= Math.max(5101 + 600 * 128, edge), `${right}`);
  bed.svm(pureAck(sIsn, 0, 5101, 1000));
  assert.deepEqual(
    bed.left().map((update) => update.window),
    [1000],
    'the window update follows',
  );
});

test('an acknowledgement that the secondary does not give in time wants a checkpoint, which gives it', () => {
  const bed = connected();
  bed.pass(1000);
  bed.pvm(pureAck(pIsn, 0, 5101));
  bed.pass(199);
  assert.equal(bed.wanted.length, 0);
  bed.pass(2);
  assert.deepEqual(
    bed.wanted.map(({ kind }) => kind),
    ['ack-timeout'],
  );
  bed.checkpoint();
  assert.deepEqual(
    bed.left().map((view) => view.ack),
    [5101],
  );
});

test('a FIN leaves when the secondary has ended the stream at the same place', () => {
  const bed = connected();
  bed.pvm(data(pIsn, 0, 'bye', { flags: tcpFlag.fin }));
  bed.svm(data(sIsn, 0, 'bye'));
  assert.deepEqual(
    bed.left().map((view) => [text(view), view.isFin]),
    [['bye', false]],
  );
  bed.svm(data(sIsn, 3, '', { flags: tcpFlag.fin }));
  assert.deepEqual(
    bed.left().map((view) => [text(view), view.isFin]),
    [['', true]],
  );
});

test('a FIN at another place is a divergence, on either side', () => {
  const early = connected();
  early.svm(data(sIsn, 0, 'by', { flags: tcpFlag.fin }));
  early.pvm(data(pIsn, 0, 'bye'));
  assert.equal(early.wanted[0]?.kind, 'fin');
  const late = connected();
  late.svm(data(sIsn, 0, 'bye'));
  late.pvm(data(pIsn, 0, 'by', { flags: tcpFlag.fin }));
  assert.equal(late.wanted[0]?.kind, 'fin');
  assert.ok(late.left().every((view) => !view.isFin));
});

test('an RST leaves when the secondary resets at the same place; going on where it did not is a divergence', () => {
  const bed = connected();
  const reset = (isn: number) => fromGuest({ sequence: isn + 1, flags: tcpFlag.rst });
  bed.pvm(reset(pIsn));
  assert.equal(bed.left().length, 0);
  bed.svm(reset(sIsn));
  assert.equal(bed.left()[0]?.isReset, true);
  const other = connected();
  other.svm(reset(sIsn));
  other.pvm(data(pIsn, 0, 'alive'));
  assert.equal(other.wanted[0]?.kind, 'rst');
  assert.equal(other.left().length, 0);
});

test('a refused connection: both send RST with sequence number 0', () => {
  const bed = new Bed();
  bed.protect();
  bed.client(toGuest({ sequence: 5000, flags: tcpFlag.syn }));
  const refusal = fromGuest({ sequence: 0, ack: 5001, flags: tcpFlag.rst });
  bed.pvm(refusal);
  bed.svm(refusal);
  assert.equal(bed.left().length, 1);
});

test('a retransmission of bytes that have left does not wait', () => {
  const bed = connected();
  bed.svm(data(sIsn, 0, 'abc'));
  bed.pvm(data(pIsn, 0, 'abc'));
  bed.left();
  bed.pvm(data(pIsn, 0, 'abc'));
  assert.deepEqual(bed.left().map(text), ['abc']);
});

test('after a commit the bytes it covers may be sent again, but not before', () => {
  const bed = connected();
  bed.pvm(data(pIsn, 0, 'abc'));
  const { epoch, table, held } = bed.primary.capture(bed.now);
  bed.secondary.captureMarker(epoch);
  bed.pvm(data(pIsn, 0, 'abc'));
  assert.equal(bed.left().length, 0);
  bed.primary.commit(epoch, bed.now);
  assert.deepEqual(bed.left().map(text), ['abc', 'abc']);
  bed.apply(epoch, table, held);
  bed.pvm(data(pIsn, 3, 'd'));
  assert.equal(bed.left().length, 0);
  bed.svm(data(pIsn, 3, 'd'));
  assert.deepEqual(bed.left().map(text), ['d'], 'the loaded SVM has the numbers of the PVM');
});

test('output of the SVM from before the commit proves nothing afterwards', () => {
  const bed = connected();
  const stale = data(sIsn, 0, 'abc');
  const { epoch } = bed.primary.capture(bed.now);
  bed.pvm(data(pIsn, 0, 'abc'));
  bed.primary.commit(epoch, bed.now);
  bed.svm(stale);
  assert.equal(bed.left().length, 0);
  assert.equal(bed.primary.counters.dropped.stale, 1);
});

test('an abort goes on as if there had been no capture', () => {
  const bed = connected();
  bed.svm(data(sIsn, 0, 'ab'));
  const { epoch } = bed.primary.capture(bed.now);
  bed.secondary.captureMarker(epoch);
  bed.pvm(data(pIsn, 0, 'abcd'));
  bed.svm(data(sIsn, 2, 'c'));
  assert.equal(bed.left().length, 0);
  bed.primary.abort(epoch, bed.now);
  bed.secondary.abortMarker(epoch);
  assert.deepEqual(bed.left().map(text), ['abc']);
  bed.svm(data(sIsn, 3, 'd'));
  assert.deepEqual(bed.left().map(text), ['d']);
});

test('a commit lets everything leave in the order in which the guest sent it', () => {
  const bed = connected();
  const other = { ...client, port: 4712 };
  bed.pvm(data(pIsn, 0, '1'));
  bed.pvm(buildUdp(guest, other, bytes('2')));
  bed.pvm(data(pIsn, 1, '3'));
  bed.pvm(buildUdp(guest, client, bytes('4')));
  bed.checkpoint();
  assert.equal(
    bed
      .left()
      .map((view) => String.fromCharCode(view.frame.at(-1) ?? 0))
      .join(''),
    '1234',
  );
});

test('a new connection on an old 5-tuple starts afresh', () => {
  const bed = connected();
  bed.svm(data(sIsn, 0, 'old'));
  bed.pvm(data(pIsn, 0, 'old', { flags: tcpFlag.fin }));
  bed.left();
  bed.connect(pIsn + 90_000_000, sIsn + 5, 900_000);
  assert.equal(bed.left()[0]?.sequence, pIsn + 90_000_000);
  bed.svm(data(sIsn + 5, 0, 'new', { ack: 900_001 }));
  bed.pvm(data(pIsn + 90_000_000, 0, 'new', { ack: 900_001 }));
  assert.deepEqual(bed.left().map(text), ['new']);
  assert.equal(bed.wanted.length, 0);
});

test('a new connection on an old 5-tuple that the SVM accepts first', () => {
  const bed = connected();
  const next = { clientIsn: 900_000, p: 40, s: 50 };
  bed.client(toGuest({ sequence: next.clientIsn, flags: tcpFlag.syn, options: synOptionBytes }));
  bed.svm(fromGuest({ sequence: next.s, ack: 900_001, flags: tcpFlag.syn, options: synOptionBytes }));
  bed.pvm(fromGuest({ sequence: next.p, ack: 900_001, flags: tcpFlag.syn, options: synOptionBytes }));
  assert.deepEqual(
    bed.left().map((view) => view.sequence),
    [next.p],
  );
});

test('a connection that the guest opens is compared and translated', () => {
  const bed = new Bed();
  bed.protect();
  bed.svm(fromGuest({ sequence: sIsn, flags: tcpFlag.syn, options: synOptionBytes }));
  bed.pvm(fromGuest({ sequence: pIsn, flags: tcpFlag.syn, options: synOptionBytes }));
  assert.deepEqual(
    bed.left().map((view) => view.sequence),
    [pIsn],
  );
  bed.client(toGuest({ sequence: 5000, ack: pIsn + 1, flags: tcpFlag.syn, options: synOptionBytes }));
  bed.svm(data(sIsn, 0, 'q'));
  bed.pvm(pureAck(pIsn, 0, 5001));
  bed.pvm(data(pIsn, 0, 'q'));
  assert.equal(bed.left().map(text).join(''), 'q');
});

test('datagrams leave in the order of the primary, whatever the order of the secondary', () => {
  const bed = connected();
  for (const content of ['1', '2', '3']) bed.pvm(buildUdp(guest, client, bytes(content)));
  for (const content of ['3', '1']) bed.svm(buildUdp(guest, client, bytes(content)));
  assert.equal(bed.left().length, 1);
  bed.svm(buildUdp(guest, client, bytes('2')));
  assert.equal(bed.left().length, 2);
  bed.pass(500);
  assert.equal(bed.wanted.length, 0);
});

test('a datagram that differs is a divergence after the grace', () => {
  const bed = connected();
  bed.pvm(buildUdp(guest, client, bytes('one')));
  bed.svm(buildUdp(guest, client, bytes('ony')));
  bed.pass(19);
  assert.equal(bed.wanted.length, 0);
  bed.pass(2);
  assert.equal(bed.wanted[0]?.kind, 'payload');
  assert.equal(bed.primary.divergences()[0]?.offset, 2);
  bed.checkpoint();
  assert.equal(bed.left().length, 1);
});

test('ICMP and ARP are compared by their meaning, anything else as a whole', () => {
  const bed = connected();
  const echo = { reply: true, id: 4, sequence: 9 };
  for (const frame of [buildIcmpEcho(guest, client, echo), announce(guest.mac, guest.ip), new Uint8Array(70).fill(7)]) {
    bed.pvm(frame);
    assert.equal(bed.left().length, 0);
    bed.svm(frame);
    assert.equal(bed.left().length, 1);
  }
  bed.pvm(buildIcmpEcho(guest, client, { ...echo, sequence: 10 }));
  bed.svm(buildIcmpEcho(guest, client, { ...echo, sequence: 11 }));
  assert.equal(bed.left().length, 0);
});

test('a frame without an answer of the secondary wants one checkpoint, and only one', () => {
  const bed = connected();
  bed.pass(1000);
  bed.pvm(data(pIsn, 0, 'x'));
  bed.pass(150);
  assert.equal(bed.wanted.length, 0);
  bed.pass(51);
  bed.pass(500);
  assert.deepEqual(
    bed.wanted.map(({ kind }) => kind),
    ['timeout'],
  );
});

test('after a load there is patience', () => {
  const bed = connected();
  bed.pass(1000);
  bed.checkpoint();
  bed.pvm(data(pIsn, 0, 'x'));
  bed.pass(399);
  assert.equal(bed.wanted.length, 0);
  bed.pass(2);
  assert.equal(bed.wanted.length, 1);
});

test('what the client has reset does not cost a checkpoint', () => {
  const bed = connected();
  bed.pass(1000);
  bed.pvm(data(pIsn, 0, 'unwanted'));
  bed.client(toGuest({ sequence: 5001, flags: tcpFlag.rst }));
  bed.pass(1000);
  assert.equal(bed.wanted.length, 0);
  assert.equal(bed.primary.counters.heldFrames, 0);
});

test('what somebody else has reset in the name of the client is asked a checkpoint for, as ever', () => {
  const bed = connected();
  bed.pass(1000);
  bed.pvm(data(pIsn, 0, 'wanted'));
  bed.client(toGuest({ sequence: 0x40000000, flags: tcpFlag.rst }));
  bed.pass(1000);
  assert.deepEqual(
    bed.wanted.map(({ kind }) => kind),
    ['timeout'],
  );
  assert.equal(bed.primary.counters.heldFrames, 1);
});

test('with the gate closed nothing leaves, and what was allowed leaves when it opens', () => {
  const bed = connected();
  bed.primary.setGate(false, bed.now);
  bed.pvm(buildUdp(guest, client, bytes('u')));
  bed.svm(buildUdp(guest, client, bytes('u')));
  bed.pvm(data(pIsn, 0, 'x'));
  bed.svm(data(sIsn, 0, 'x'));
  assert.equal(bed.left().length, 0);
  assert.equal(bed.secondary.takeover(bed.now).resend.length >= 2, true, 'the survivor would send both');
  bed.primary.setGate(true, bed.now);
  assert.equal(bed.left().length, 2);
});

test('going alone releases everything, also what a shut gate would have had no room for', () => {
  const bed = new Bed({ onLeave: () => undefined });
  bed.protect();
  bed.primary.setGate(false, bed.now);
  const frames = Math.ceil((2.2 * proxyLimits.gatedBytesMax) / 60_000);
  for (let count = 0; count < frames; count += 1) {
    const from = { ...guest, port: 1000 + (count % 20) };
    bed.pvm(buildUdp(from, client, new Uint8Array(60_000)));
  }
  assert.throws(() => bed.primary.goAlone(bed.now), /may speak/);
  bed.primary.setGate(true, bed.now);
  bed.primary.goAlone(bed.now);
  assert.equal(bed.network.length, frames);
  assert.equal(bed.primary.counters.dropped.gate, 0);
});

test('going alone releases everything in order and passes from then on', () => {
  const bed = connected();
  bed.pvm(data(pIsn, 0, 'a'));
  bed.primary.capture(bed.now);
  bed.pvm(data(pIsn, 1, 'b'));
  bed.primary.goAlone(bed.now);
  bed.pvm(data(pIsn, 2, 'c'));
  assert.equal(bed.left().map(text).join(''), 'abc');
});

test('too much held: a checkpoint is wanted and the guest waits until it is committed', () => {
  const bed = connected();
  const content = 'x'.repeat(60_000);
  for (let at = 0; !bed.isPaused && at < 100; at += 1) bed.pvm(data(pIsn, at * content.length, content));
  assert.equal(bed.isPaused, true);
  assert.ok(bed.primary.counters.heldBytes < 5 << 20);
  assert.equal(bed.wanted[0]?.kind, 'limit');
  bed.checkpoint();
  assert.equal(bed.isPaused, false);
  assert.equal(bed.primary.counters.heldBytes, 0);
});

test('a flood of datagrams that is held is no more than a checkpoint can carry, and all of it leaves at the commit', () => {
  for (const mode of ['colo', 'remus'] as const) {
    const bed = new Bed({ mode, onLeave: () => undefined });
    bed.protect();
    for (let count = 0; count < 3000; count += 1) bed.pvm(buildUdp(guest, client, new Uint8Array(1000)));
    const { epoch, held } = bed.primary.capture(bed.now);
    assert.ok(held.length <= proxyLimits.heldBytesInCheckpointMax && held.length > 2_000_000);
    bed.primary.commit(epoch, bed.now);
    assert.equal(bed.left().length, 3000);
  }
});

test('a checkpoint that was wanted and could not be begun is wanted again', () => {
  const bed = connected();
  bed.pvm(data(pIsn, 0, 'one'));
  bed.svm(data(sIsn, 0, 'two'));
  assert.equal(bed.wanted.length, 1);
  bed.primary.poll(bed.now);
  assert.equal(bed.wanted.length, 1, 'asked once');
  bed.primary.notCaptured();
  bed.primary.poll(bed.now);
  assert.deepEqual(bed.wanted[1], bed.wanted[0]);
});

test('remus: everything waits for the commit', () => {
  const bed = new Bed({ mode: 'remus' });
  bed.protect();
  bed.pvm(data(pIsn, 0, 'a'));
  bed.pvm(buildUdp(guest, client, bytes('u')));
  bed.pass(5000);
  assert.equal(bed.left().length, 0);
  assert.equal(bed.wanted.length, 0);
  const { epoch } = bed.primary.capture(bed.now);
  bed.pvm(data(pIsn, 1, 'b'));
  bed.primary.commit(epoch, bed.now);
  assert.deepEqual(
    bed.left().map((view) => view.kind),
    ['tcp', 'udp'],
  );
});

test('an edge of the window that has left is not taken back, whichever guest has a narrower one now', () => {
  for (const [pWindow, sWindow] of [
    [1000, 600],
    [600, 1000],
  ] as const) {
    const bed = connected();
    bed.svm(pureAck(sIsn, 0, 5101, 1000));
    bed.pvm(pureAck(pIsn, 0, 5101, 1000));
    const [wide] = bed.left();
    assert.equal(wide?.window, 1000);
    bed.svm(data(sIsn, 0, 'x', { ack: 5101, window: sWindow }));
    bed.pvm(data(pIsn, 0, 'x', { ack: 5101, window: pWindow }));
    assert.deepEqual(
      bed.left().map(({ ack, window }) => [ack, window]),
      [[5101, 1000]],
    );
  }
});

test('an acknowledgement that has left is not taken back by a segment that was made before it', () => {
  const bed = connected();
  bed.svm(pureAck(sIsn, 0, 5101, 1000));
  bed.pvm(pureAck(pIsn, 0, 5101, 1000));
  assert.equal(bed.left()[0]?.ack, 5101);
  bed.svm(data(sIsn, 0, 'x', { ack: 5051, window: 1000 }));
  bed.pvm(data(pIsn, 0, 'x', { ack: 5051, window: 1000 }));
  assert.deepEqual(
    bed.left().map(({ ack }) => ack),
    [5101],
  );
});

test('the grace of a datagram counts from when the later of the two has come', () => {
  for (const isPrimaryFirst of [true, false]) {
    const bed = connected();
    const [one, other] = [buildUdp(guest, client, bytes('one')), buildUdp(guest, client, bytes('ony'))];
    if (isPrimaryFirst) bed.pvm(one);
    else bed.svm(other);
    bed.pass(100);
    if (isPrimaryFirst) bed.svm(other);
    else bed.pvm(one);
    bed.pass(20);
    assert.equal(bed.primary.divergences().length, 0, 'the right one may still come');
    bed.pass(1);
    assert.equal(bed.primary.divergences().length, 1);
  }
});

test('while a checkpoint is applied nothing is overdue, however long that takes', () => {
  const bed = connected();
  bed.pass(5000);
  const { epoch, table, held } = bed.primary.capture(bed.now);
  bed.secondary.captureMarker(epoch);
  bed.primary.commit(epoch, bed.now);
  bed.pvm(data(pIsn, 0, 'x'));
  bed.pvm(buildUdp(guest, client, bytes('y')));
  bed.pass(60_000);
  assert.deepEqual(bed.wanted, []);
  bed.apply(epoch, table, held);
  bed.pass(401);
  assert.equal(bed.wanted.length, 1);
});

test('an acknowledgement that is owed travels with a checkpoint: the survivor says it', () => {
  const bed = connected();
  bed.pvm(pureAck(pIsn, 0, 5101));
  assert.equal(bed.left().length, 0);
  const { epoch, table, held } = bed.primary.capture(bed.now);
  bed.secondary.captureMarker(epoch);
  bed.secondary.suspend();
  bed.secondary.resume(epoch, table, held, bed.now);
  const said = bed.secondary.takeover(bed.now).resend.map((frame) => new FrameView().parse(frame));
  assert.deepEqual(
    said.map(({ ack, payloadBytes, sequence }) => [ack, payloadBytes, sequence]),
    [[5101, 0, pIsn + 1]],
  );
});
