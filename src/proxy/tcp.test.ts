// TCP beyond the plain case: both families and VLANs, timestamps, simultaneous open, half-open and idle connections.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { buildTcp, timestampsOption } from '../packet/build.ts';
import { read16, read32 } from '../packet/checksum.ts';
import { FrameView } from '../packet/frame-view.ts';
import { advance } from '../packet/sequence.ts';
import { forEachSackEdge, tcpFlag } from '../packet/tcp.ts';
import { proxyLimits } from './limits.ts';
import type { Similarity } from './similarity.ts';
import {
  allEnds,
  assertValid,
  Bed,
  bytes,
  type Ends,
  overIpv4,
  overIpv6,
  synOptionBytes,
  text,
} from './testbed/testbed.ts';

const pIsn = 1000;
const sIsn = 9000;

function connected(ends: Ends): Bed {
  const bed = new Bed();
  bed.protect();
  bed.connect(pIsn, sIsn, 5000, ends);
  bed.left();
  return bed;
}

const data = ({ guest, client }: Ends, isn: number, at: number, content: string, options?: Uint8Array) =>
  buildTcp(guest, client, {
    sequence: isn + 1 + at,
    ack: 5001,
    flags: 0,
    window: 1000,
    options: options ?? new Uint8Array(0),
    payload: bytes(content),
  });

const time = ({ frame, timestampsAt }: FrameView) => read32(frame, timestampsAt);

test('a stream is compared, cut and translated over IPv4, IPv6 and VLAN tags alike', () => {
  for (const ends of allEnds) {
    const bed = connected(ends);
    bed.svm(data(ends, sIsn, 0, 'hel'));
    bed.pvm(data(ends, pIsn, 0, 'hello'));
    bed.svm(data(ends, sIsn, 3, 'lo'));
    const left = bed.left();
    assert.deepEqual(left.map(text), ['hel', 'lo'], ends.name);
    assert.equal(left[1]?.sequence, pIsn + 4);
    bed.client(buildTcp(ends.client, ends.guest, { sequence: 5001, ack: pIsn + 6, flags: 0 }));
    const view = new FrameView().parse(bed.toSecondaryGuest.at(-1) ?? assert.fail());
    assertValid(view.frame);
    assert.equal(view.ack, sIsn + 6, ends.name);
  }
});

test('connections of the same ports in two VLANs, or over both families, are two', () => {
  const bed = new Bed();
  bed.protect();
  allEnds.forEach((ends, index) => bed.connect(pIsn + index, sIsn + index, 5000, ends));
  assert.equal(bed.primary.counters.connections, allEnds.length);
  bed.left();
  allEnds.forEach((ends, index) => {
    bed.pvm(data(ends, pIsn + index, 0, ends.name));
    bed.svm(data(ends, sIsn + index, 0, ends.name));
  });
  assert.deepEqual(
    bed.left().map(text),
    allEnds.map(({ name }) => name),
  );
  bed.checkpoint();
  const { table } = bed.secondary.takeover(bed.now);
  assert.equal(table.length, 12 + 2 * 32 + 2 * 56);
});

test('SACK over IPv6 is translated', () => {
  const bed = connected(overIpv6);
  const options = Buffer.from('0101050a0000000000000000', 'hex');
  options.writeUInt32BE(pIsn + 11, 4);
  options.writeUInt32BE(pIsn + 21, 8);
  bed.client(buildTcp(overIpv6.client, overIpv6.guest, { sequence: 5001, ack: pIsn + 1, flags: 0, options }));
  const view = new FrameView().parse(bed.toSecondaryGuest.at(-1) ?? assert.fail());
  assertValid(view.frame);
  const edges: number[] = [];
  forEachSackEdge(view.frame, view.transportAt, (at) => edges.push(read32(view.frame, at)));
  assert.deepEqual(edges, [sIsn + 11, sIsn + 21]);
});

test('a hop-by-hop header before TCP is stepped over', () => {
  const plain = data(overIpv6, pIsn, 0, 'x');
  const frame = Buffer.concat([plain.subarray(0, 54), Buffer.from([6, 0, 1, 4, 0, 0, 0, 0]), plain.subarray(54)]);
  frame[20] = 0;
  frame.writeUInt16BE(frame.length - 54, 18);
  const view = new FrameView().parse(frame);
  assert.deepEqual([view.kind, view.payloadBytes, text(view)], ['tcp', 1, 'x']);
  assertValid(frame);
});

/** A connection with timestamps: the PVM's clock shows 500, the SVM's 90. */
function timed(similarity?: Similarity): Bed {
  const { guest, client } = overIpv4;
  const bed = new Bed(similarity === undefined ? {} : { more: { similarity } });
  bed.protect();
  const syn = (isn: number, at: number) => {
    const options = timestampsOption(at, 77);
    return buildTcp(guest, client, { sequence: isn, ack: 5001, flags: tcpFlag.syn, window: 1000, options });
  };
  bed.client(buildTcp(client, guest, { sequence: 5000, flags: tcpFlag.syn, options: timestampsOption(77, 0) }));
  bed.pvm(syn(pIsn, 500));
  bed.svm(syn(sIsn, 90));
  assert.deepEqual(bed.left().map(time), [500], "the timeline that leaves is the primary's");
  return bed;
}

const stamped = (isn: number, at: number, content: string, value: number) =>
  data(overIpv4, isn, at, content, timestampsOption(value, 77));

test("TSval leaves up to what the secondary has reached, and TSecr comes back in each guest's own time", () => {
  const bed = timed();
  bed.pvm(stamped(pIsn, 0, 'a', 530));
  bed.svm(stamped(sIsn, 0, 'a', 110));
  const [first] = bed.left();
  assert.ok(first !== undefined);
  assert.equal(time(first), 520, 'the secondary is 10 behind');
  const { guest, client } = overIpv4;
  const options = timestampsOption(80, 520);
  bed.client(buildTcp(client, guest, { sequence: 5001, ack: pIsn + 2, flags: 0, options }));
  const echo = (frame: Uint8Array | undefined) => read32(frame ?? assert.fail(), 14 + 20 + 20 + 8);
  assert.deepEqual([echo(bed.toPrimaryGuest.at(-1)), echo(bed.toSecondaryGuest.at(-1))], [520, 110]);
  assertValid(bed.toSecondaryGuest.at(-1) ?? assert.fail());
});

test('a segment that waited does not leave with an older TSval than one that passed it', () => {
  const bed = timed();
  bed.pvm(stamped(pIsn, 0, 'late', 510));
  const { guest, client } = overIpv4;
  const ack = (isn: number, value: number) =>
    buildTcp(guest, client, { sequence: isn + 5, ack: 5001, flags: 0, options: timestampsOption(value, 77) });
  bed.svm(ack(sIsn, 140));
  bed.pvm(ack(pIsn, 545));
  bed.svm(stamped(sIsn, 0, 'late', 140));
  const times = bed.left().map(time);
  assert.deepEqual(times, [545, 545]);
});

test('after a takeover TSval goes on where it was, and the offset outlives a second protection', () => {
  const bed = timed();
  bed.svm(stamped(sIsn, 0, 'said', 130));
  bed.pvm(stamped(pIsn, 0, 'said', 555));
  assert.deepEqual(bed.left().map(time), [540]);
  const { table, resend } = bed.secondary.takeover(bed.now);
  assert.deepEqual(
    resend.map((frame) => time(new FrameView().parse(frame))),
    [540, 540],
    'what may have been lost is not older than what the client has seen',
  );
  const survivor = new Bed({ more: { table } });
  survivor.pvm(stamped(sIsn, 4, 'on', 131));
  assert.deepEqual(survivor.left().map(time), [541]);
  survivor.protect();
  survivor.svm(stamped(sIsn, 6, '!', 140));
  survivor.pvm(stamped(sIsn, 6, '!', 150));
  assert.deepEqual(survivor.left().map(time), [550]);
});

test('timestamps may leave in coarse steps, or as the guest wrote them', () => {
  const say = (timestamps: Similarity['timestamps']) => {
    const bed = timed({ timestamps, acks: 'merged', window: 'exact', dates: 'exact' });
    bed.pvm(stamped(pIsn, 0, 'a', 573));
    bed.svm(stamped(sIsn, 0, 'a', 150));
    return bed.left().map(time);
  };
  assert.deepEqual(say('clamped'), [560]);
  assert.deepEqual(say('coarse'), [560 & ~15]);
  assert.deepEqual(say('passed'), [573]);
});

test('a connection that both sides open at once is compared and translated', () => {
  const { guest, client } = overIpv4;
  const bed = new Bed();
  bed.protect();
  const syn = (sequence: number) => buildTcp(guest, client, { sequence, flags: tcpFlag.syn });
  const synAck = (sequence: number) => buildTcp(guest, client, { sequence, ack: 5001, flags: tcpFlag.syn });
  bed.pvm(syn(pIsn));
  bed.svm(syn(sIsn));
  assert.equal(bed.left().length, 1);
  bed.client(buildTcp(client, guest, { sequence: 5000, flags: tcpFlag.syn }));
  bed.pvm(synAck(pIsn));
  assert.equal(bed.left().length, 0, "the answer waits for the secondary's");
  bed.svm(synAck(sIsn));
  assert.deepEqual(
    bed.left().map(({ sequence, hasAck }) => [sequence, hasAck]),
    [[pIsn, true]],
  );
  bed.pvm(data(overIpv4, pIsn, 0, 'hello'));
  bed.svm(data(overIpv4, sIsn, 0, 'hello'));
  assert.deepEqual(bed.left().map(text), ['hello']);
  assert.equal(bed.wanted.length, 0);
});

test('half-open: what one end has closed, the other goes on to use', () => {
  const { guest, client } = overIpv4;
  const bed = connected(overIpv4);
  bed.client(buildTcp(client, guest, { sequence: 5001, ack: pIsn + 1, flags: tcpFlag.fin }));
  for (let at = 0; at < 3; at += 1) {
    bed.pass(proxyLimits.lingerMs);
    bed.pvm(data(overIpv4, pIsn, at, 'x'));
    bed.svm(data(overIpv4, sIsn, at, 'x'));
    assert.deepEqual(bed.left().map(text), ['x']);
  }
  const fin = (isn: number) => buildTcp(guest, client, { sequence: isn + 4, ack: 5002, flags: tcpFlag.fin });
  bed.svm(fin(sIsn));
  bed.pvm(fin(pIsn));
  assert.equal(bed.left()[0]?.isFin, true);
  bed.pass(2 * proxyLimits.lingerMs + 1);
  assert.equal(bed.primary.counters.connections, 0);
});

test('a connection that is idle for a day is still translated', () => {
  const bed = connected(overIpv4);
  bed.pass(24 * 3600 * 1000);
  bed.pvm(data(overIpv4, pIsn, 0, 'awake'));
  bed.svm(data(overIpv4, sIsn, 0, 'awake'));
  const [left] = bed.left();
  assert.deepEqual([left?.sequence, left === undefined ? '' : text(left)], [pIsn + 1, 'awake']);
});

test('a new connection on an old 5-tuple whose numbers lie lower is compared from its beginning', () => {
  const bed = new Bed();
  bed.protect();
  bed.connect(4_000_000_000, 3_000_000_000, 5000);
  bed.left();
  bed.connect(17, 23, 900_000);
  bed.left();
  bed.pvm(data(overIpv4, 17, 0, 'new'));
  bed.svm(data(overIpv4, 23, 0, 'neq'));
  assert.deepEqual(bed.left().map(text), ['ne']);
  assert.equal(bed.primary.divergences()[0]?.offset, 2);
});

test('acknowledgements may wait for the primary instead of being made', () => {
  const ack = (isn: number, value: number) =>
    buildTcp(overIpv4.guest, overIpv4.client, { sequence: isn + 1, ack: value, flags: 0, window: 1000 });
  const acked = (acks: Similarity['acks']) => {
    const bed = new Bed({ more: { similarity: { timestamps: 'clamped', acks, window: 'exact', dates: 'exact' } } });
    bed.protect();
    bed.connect(pIsn, sIsn);
    bed.left();
    bed.pvm(ack(pIsn, 5101));
    bed.svm(ack(sIsn, 5101));
    const early = bed.left().map((view) => view.ack);
    bed.checkpoint();
    return [early, bed.left().map((view) => view.ack)];
  };
  assert.deepEqual(acked('merged'), [[5101], []]);
  assert.deepEqual(acked('held'), [[], [5101]]);
});

test('a coarse window is told in steps, never beyond either guest, and never goes back', () => {
  const bed = new Bed({
    more: { similarity: { timestamps: 'clamped', acks: 'merged', window: 'coarse', dates: 'exact' } },
  });
  bed.protect();
  bed.connect(pIsn, sIsn);
  bed.left();
  const ack = (isn: number, at: number, window: number) =>
    buildTcp(overIpv4.guest, overIpv4.client, { sequence: isn + 1, ack: 5001 + at, flags: 0, window });
  let edge = 0;
  for (let at = 100; at < 1000; at += 100) {
    bed.svm(ack(sIsn, 90_000 + at, 900));
    bed.pvm(ack(pIsn, 90_000 + at, 905));
    for (const view of bed.left()) {
      const next = advance(view.ack, view.window << 7);
      assert.ok(next <= 5001 + 90_000 + at + (900 << 7));
      assert.ok(next > edge - (1 << 7), 'the right edge goes back by more than the scale');
      edge = next;
    }
  }
  assert.ok(edge > 0);
});

test('a SYN-ACK whose unknown options differ does not leave: the secondary could not go on with the key of the other', () => {
  const multipath = (key: number) => Uint8Array.of(30, 12, 1, 1, key, 2, 3, 4, 5, 6, 7, 8);
  const { guest, client } = overIpv4;
  const answers = (pKey: number, sKey: number) => {
    const bed = new Bed();
    bed.protect();
    bed.client(buildTcp(client, guest, { sequence: 5000, flags: tcpFlag.syn, options: multipath(7) }));
    bed.pvm(buildTcp(guest, client, { sequence: pIsn, ack: 5001, flags: tcpFlag.syn, options: multipath(pKey) }));
    bed.svm(buildTcp(guest, client, { sequence: sIsn, ack: 5001, flags: tcpFlag.syn, options: multipath(sKey) }));
    return [bed.left().length, bed.wanted.map(({ kind }) => kind)];
  };
  assert.deepEqual(answers(1, 2), [0, ['options']]);
  assert.deepEqual(answers(1, 1), [1, []]);
});

test('a refused connection leaves only what the secondary has refused too', () => {
  const { guest, client } = overIpv4;
  const bed = new Bed();
  bed.protect();
  const refusal = (clientIsn: number) =>
    buildTcp(guest, client, { sequence: 0, ack: clientIsn + 1, flags: tcpFlag.rst });
  const call = (sequence: number) => bed.client(buildTcp(client, guest, { sequence, flags: tcpFlag.syn }));
  call(5000);
  bed.svm(refusal(5000));
  bed.pvm(refusal(5000));
  assert.equal(bed.left().length, 1);
  call(77_000);
  bed.pvm(refusal(77_000));
  assert.equal(bed.left().length, 0, 'the secondary has refused another call only');
  bed.svm(refusal(77_000));
  assert.equal(bed.left().length, 1);
});

test('urgent data leaves when the secondary has marked the same, and the mark stays where it was when a segment is cut', () => {
  const { guest, client } = overIpv4;
  const bed = connected(overIpv4);
  const marked = (isn: number, at: number, content: string, urgent: number) =>
    buildTcp(guest, client, {
      sequence: isn + 1 + at,
      ack: 5001,
      flags: 0,
      window: 1000,
      urgent,
      payload: bytes(content),
    });
  const marks = () =>
    bed.left().map((view) => {
      const isMarked = (view.flags & tcpFlag.urg) !== 0;
      return [text(view), isMarked ? view.sequence + read16(view.frame, view.transportAt + 18) : undefined];
    });
  bed.svm(data(overIpv4, sIsn, 0, 'hel'));
  bed.pvm(marked(pIsn, 0, 'hello!', 6));
  assert.deepEqual(marks(), []);
  bed.svm(marked(sIsn, 3, 'l', 3));
  assert.deepEqual(marks(), [['hell', pIsn + 7]]);
  bed.svm(data(overIpv4, sIsn, 4, 'o!'));
  assert.deepEqual(marks(), [['o!', pIsn + 7]]);
  bed.pvm(marked(pIsn, 0, 'hello!', 6));
  assert.deepEqual(marks(), [['hello!', pIsn + 7]], 'what has left may leave again');
  bed.pvm(marked(pIsn, 0, 'hello!', 9));
  assert.deepEqual(marks(), [], 'with another mark it waits');
  bed.svm(data(overIpv4, sIsn, 6, 'xyz!'));
  bed.pvm(marked(pIsn, 4, 'o!xyz!', 2));
  assert.deepEqual(marks(), []);
  bed.checkpoint();
  const after = marks();
  assert.deepEqual(after.at(-1), ['o!xyz!', pIsn + 7], 'a commit covers every mark');
});

test('a forged answer to a SYN does not make the window that leaves wider than that of either guest', () => {
  const { guest, client } = overIpv4;
  const bed = new Bed();
  bed.protect();
  const answer = (isn: number) =>
    buildTcp(guest, client, { sequence: isn, ack: 5001, flags: tcpFlag.syn, window: 1000, options: synOptionBytes });
  bed.client(buildTcp(client, guest, { sequence: 5000, flags: tcpFlag.syn, options: synOptionBytes }));
  bed.pvm(answer(pIsn));
  bed.svm(answer(sIsn));
  bed.left();
  bed.client(buildTcp(client, guest, { sequence: 0x40000000, ack: 0x50000000, flags: tcpFlag.syn }));
  const ack = (isn: number, value: number, window: number) =>
    buildTcp(guest, client, { sequence: isn + 1, ack: value, flags: 0, window });
  bed.svm(ack(sIsn, 6000, 0));
  bed.pvm(ack(pIsn, 5500, 2000));
  const left = bed.left();
  assert.equal(left.length, 1);
  for (const view of left) assert.ok(view.ack + (view.window << 7) <= 6001, `${view.window} scaled by 7`);
});

/**
 * The SVM answered an old SYN of the client (5000) by itself; the client calls anew from the same port, the PVM
 * answers.
 */
function answeredTwoCalls(clientIsn: number): { bed: Bed; syn: (sequence: number, ack: number) => Uint8Array } {
  const { guest, client } = overIpv4;
  const syn = (sequence: number, ack: number) =>
    buildTcp(guest, client, { sequence, ack, flags: tcpFlag.syn, window: 1000, options: synOptionBytes });
  const bed = connected(overIpv4);
  bed.svm(syn(sIsn + 500_000, 5001));
  const options = synOptionBytes;
  bed.client(buildTcp(client, guest, { sequence: clientIsn, flags: tcpFlag.syn, options }));
  bed.pvm(syn(pIsn + 500_000, advance(clientIsn, 1)));
  return { bed, syn };
}

test("a SYN-ACK leaves only if the secondary's answers the same SYN, however the numbers of the two calls lie", () => {
  const { guest, client } = overIpv4;
  for (const clientIsn of [6000, 4000, 5000 + 2 ** 31 + 7, 5000 + 2 ** 31 - 7]) {
    const { bed, syn } = answeredTwoCalls(clientIsn);
    const ack = advance(clientIsn, 1);
    assert.deepEqual(bed.left(), [], `the answer to ${clientIsn}`);
    bed.svm(buildTcp(guest, client, { sequence: sIsn + 500_001, ack: 5001, flags: 0, window: 1000 }));
    bed.pvm(buildTcp(guest, client, { sequence: pIsn + 500_001, ack, flags: 0, window: 1000 }));
    assert.deepEqual(bed.left(), [], 'nor an acknowledgement of it');
    bed.svm(syn(sIsn + 900_000, ack));
    bed.pvm(syn(pIsn + 500_000, ack));
    assert.equal(bed.left()[0]?.ack, ack, 'it leaves when the secondary has answered the same call');
  }
});

test('a SYN-ACK whose SYN the secondary never saw leaves with a checkpoint', () => {
  const { bed } = answeredTwoCalls(5000 + 2 ** 31 + 7);
  bed.pass(1000);
  assert.equal(bed.wanted.length, 1);
  bed.checkpoint();
  assert.deepEqual(
    bed.left().map(({ sequence, ack }) => [sequence, ack]),
    [[pIsn + 500_000, 5008 + 2 ** 31]],
  );
});

test('both open at once: a second call of the client that only one of the guests answers leaves nothing', () => {
  const { guest, client } = overIpv4;
  const bed = new Bed();
  bed.protect();
  const syn = (sequence: number) => buildTcp(guest, client, { sequence, flags: tcpFlag.syn });
  const synAck = (sequence: number, ack: number) => buildTcp(guest, client, { sequence, ack, flags: tcpFlag.syn });
  bed.pvm(syn(pIsn));
  bed.svm(syn(sIsn));
  bed.left();
  bed.svm(synAck(sIsn, 5001));
  bed.pvm(synAck(pIsn, 5001 + 2 ** 31 + 7));
  bed.pvm(buildTcp(guest, client, { sequence: pIsn + 1, ack: 5001 + 2 ** 31 + 7, flags: 0, window: 1000 }));
  assert.deepEqual(bed.left(), []);
  bed.svm(synAck(sIsn, 5001));
  assert.deepEqual(bed.left(), [], 'the secondary goes on to answer the other call');
  bed.pvm(synAck(pIsn, 5001));
  assert.deepEqual(bed.left(), [], 'what it said before does not count for this one');
  bed.svm(synAck(sIsn, 5001));
  assert.deepEqual(
    bed.left().map(({ ack }) => ack),
    [5001],
  );
});

/** Ten bytes of a connection, which have left. */
function withSaid(content = '0123456789'): Bed {
  const bed = connected(overIpv4);
  bed.pvm(data(overIpv4, pIsn, 0, content));
  bed.svm(data(overIpv4, sIsn, 0, content));
  assert.deepEqual(bed.left().map(text), [content]);
  return bed;
}

const acknowledge = (bed: Bed, bytesOfGuest: number, sequence = 5001) =>
  bed.client(buildTcp(overIpv4.client, overIpv4.guest, { sequence, ack: pIsn + 1 + bytesOfGuest, flags: 0 }));

test('a retransmission leaves at once, however it is cut, and with another byte by a commit alone', () => {
  const bed = withSaid();
  bed.pvm(data(overIpv4, pIsn, 2, '234'));
  bed.pvm(data(overIpv4, pIsn, 0, '0123456789'));
  assert.deepEqual(bed.left().map(text), ['234', '0123456789']);
  bed.pvm(data(overIpv4, pIsn, 3, '3x5'));
  assert.equal(bed.left().length, 0);
  assert.deepEqual(
    bed.primary.divergences().map(({ kind, offset }) => [kind, offset]),
    [['payload', 3]],
  );
  bed.checkpoint();
  assert.deepEqual(bed.left().map(text), ['3x5']);
  // The survivor has this one now.
  bed.pvm(data(overIpv4, pIsn, 0, '0123x5678'));
  assert.deepEqual(bed.left().map(text), ['0123x5678']);
});

test('a retransmission with another byte that waits behind the first one does not leave with it', () => {
  const bed = connected(overIpv4);
  bed.pvm(data(overIpv4, pIsn, 0, 'abcd'));
  bed.pvm(data(overIpv4, pIsn, 0, 'abXd'));
  bed.svm(data(overIpv4, sIsn, 0, 'abcd'));
  assert.deepEqual(bed.left().map(text), ['abcd']);
  assert.equal(bed.primary.divergences().length, 1);
});

test('a retransmission leaves without what the client has acknowledged, whatever stands there', () => {
  const bed = withSaid();
  acknowledge(bed, 4);
  bed.pvm(data(overIpv4, pIsn, 0, '0X23456789'));
  const [rest] = bed.left();
  assert.equal(rest === undefined ? '' : text(rest), '456789');
  assertValid(rest?.frame ?? assert.fail());
  acknowledge(bed, 10);
  // As guests do that ask whether the other end lives: one byte of rubbish before the next one (RFC 9293, 3.8.4).
  bed.pvm(data(overIpv4, pIsn, 9, 'X'));
  const [probe] = bed.left();
  assert.deepEqual([probe?.sequence, probe?.payloadBytes, bed.primary.divergences().length], [pIsn + 10, 0, 0]);
  assertValid(probe?.frame ?? assert.fail());
});

test('an acknowledgement that the guest does not take, or of what has not left, makes nothing known', () => {
  const bed = withSaid();
  acknowledge(bed, 10, 4_000_000);
  bed.pvm(data(overIpv4, pIsn, 0, '0123456789'));
  assert.deepEqual(bed.left().map(text), ['0123456789']);
  acknowledge(bed, 2000);
  bed.pvm(data(overIpv4, pIsn, 0, 'x123456789'));
  assert.equal(bed.left().length, 0);
});

test('a FIN is repeated where it has left, and nowhere else', () => {
  const bed = withSaid();
  const fin = (isn: number, at: number, content: string) => {
    const { guest, client } = overIpv4;
    return buildTcp(guest, client, { sequence: isn + 1 + at, ack: 5001, flags: tcpFlag.fin, payload: bytes(content) });
  };
  bed.pvm(fin(pIsn, 0, '01234'));
  assert.equal(bed.left().length, 0, 'an end amid what has left');
  bed.checkpoint();
  bed.left();
  const other = withSaid();
  other.pvm(fin(pIsn, 10, ''));
  other.svm(fin(sIsn, 10, ''));
  other.pvm(fin(pIsn, 5, '56789'));
  assert.deepEqual(
    other.left().map((view) => [text(view), view.isFin]),
    [
      ['', true],
      ['56789', true],
    ],
  );
  acknowledge(other, 10);
  other.pvm(fin(pIsn, 5, '56789'));
  assert.deepEqual(
    other.left().map((view) => [text(view), view.isFin, view.sequence]),
    [['', true, pIsn + 11]],
  );
});

test('a SYN-ACK is repeated as it has left, or as the secondary repeats it', () => {
  const { guest, client } = overIpv4;
  const answer = (isn: number, ecn: number, options = synOptionBytes) =>
    buildTcp(guest, client, { sequence: isn, ack: 5001, flags: tcpFlag.syn | ecn, window: 1000, options });
  const bed = new Bed();
  bed.protect();
  bed.client(buildTcp(client, guest, { sequence: 5000, flags: tcpFlag.syn | 0xc0, options: synOptionBytes }));
  bed.pvm(answer(pIsn, 0x40));
  bed.svm(answer(sIsn, 0x40));
  assert.equal(bed.left().length, 1);
  bed.checkpoint();
  bed.pvm(answer(pIsn, 0x40));
  assert.equal(bed.left().length, 1, 'the same again');
  // It offers no ECN any more, as guests do whose SYN-ACK seems to be lost because of it.
  bed.svm(answer(pIsn, 0));
  bed.pvm(answer(pIsn, 0));
  assert.equal(bed.left().length, 1, 'what the secondary has repeated too');
  bed.pvm(answer(pIsn, 0, Uint8Array.of(2, 4, 5, 0)));
  assert.deepEqual([bed.left().length, bed.primary.divergences().map(({ kind }) => kind)], [0, ['options']]);
});

test('a SYN-ACK that agrees to ECN does not leave when the secondary did not agree', () => {
  const { guest, client } = overIpv4;
  const bed = new Bed();
  bed.protect();
  bed.client(buildTcp(client, guest, { sequence: 5000, flags: tcpFlag.syn | 0xc0, options: synOptionBytes }));
  const answer = (isn: number, ecn: number) =>
    buildTcp(guest, client, {
      sequence: isn,
      ack: 5001,
      flags: tcpFlag.syn | ecn,
      window: 1000,
      options: synOptionBytes,
    });
  bed.pvm(answer(pIsn, 0x40));
  bed.svm(answer(sIsn, 0));
  assert.equal(bed.left().length, 0);
  assert.match(bed.primary.divergences()[0]?.detail ?? '', /ECN/);
});

test('what has left and is not acknowledged is remembered within bounds; beyond them it leaves by a commit', () => {
  const bed = connected(overIpv4);
  const piece = 'x'.repeat(1400);
  const count = Math.ceil(proxyLimits.sentBytesPerConnectionMax / 1400) + 10;
  for (let at = 0; at < count; at += 1) {
    bed.pvm(data(overIpv4, pIsn, at * 1400, piece));
    bed.svm(data(overIpv4, sIsn, at * 1400, piece));
  }
  assert.equal(bed.left().length, count);
  assert.ok(bed.primary.counters.sentBytes <= proxyLimits.sentBytesPerConnectionMax);
  bed.pvm(data(overIpv4, pIsn, 0, piece));
  assert.equal(bed.left().length, 0, 'forgotten');
  bed.checkpoint();
  assert.equal(bed.left().length, 1);
  bed.pvm(data(overIpv4, pIsn, (count - 1) * 1400, piece));
  assert.equal(bed.left().length, 1, 'remembered');
  acknowledge(bed, count * 1400);
  assert.equal(bed.primary.counters.sentBytes, 0);
});

test('a segment with an option that is not understood leaves by a commit alone', () => {
  const { guest, client } = overIpv4;
  const bed = connected(overIpv4);
  const segment = (isn: number, flags: number, options: Uint8Array, content: string) =>
    buildTcp(guest, client, { sequence: isn + 1, ack: 5001, flags, window: 1000, options, payload: bytes(content) });
  const multipath = Uint8Array.of(30, 4, 1, 2);
  for (const [flags, options, content] of [
    [0, multipath, 'data'],
    [0, multipath, ''],
    [tcpFlag.rst, new Uint8Array(0), 'why'],
  ] as const) {
    bed.pvm(segment(pIsn, flags, options, content));
    bed.svm(segment(pIsn, flags, options, content));
    assert.equal(bed.left().length, 0);
    assert.equal(bed.primary.divergences().at(-1)?.kind, 'options');
    bed.checkpoint();
    assert.deepEqual(bed.left().map(text), [content]);
  }
});

test('calls that nobody completes, and those that the secondary alone has begun, are forgotten', () => {
  const { guest, client } = overIpv4;
  const syn = (isn: number, port: number) =>
    buildTcp(guest, { ...client, port }, { sequence: isn, ack: 5001, flags: tcpFlag.syn, options: synOptionBytes });
  const bed = new Bed();
  bed.protect();
  bed.client(buildTcp({ ...client, port: 1 }, guest, { sequence: 5000, flags: tcpFlag.syn, options: synOptionBytes }));
  bed.pvm(syn(pIsn, 1));
  bed.svm(syn(sIsn, 1));
  bed.primary.fromSecondary(1, 7, syn(sIsn, 2), bed.now);
  assert.equal(bed.primary.counters.connections, 2);
  bed.pass(proxyLimits.openingMs + 2000);
  assert.equal(bed.primary.counters.connections, 0);
});
