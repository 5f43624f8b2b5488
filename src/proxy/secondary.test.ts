// The secondary: translation, what it keeps for a takeover, and what it replays after a load.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { buildFragments, buildTcp, buildUdp } from '../packet/build.ts';
import { read32 } from '../packet/checksum.ts';
import { FrameView } from '../packet/frame-view.ts';
import { advance, distance } from '../packet/sequence.ts';
import { forEachSackEdge, tcpFlag } from '../packet/tcp.ts';
import { assemble, pieceOf } from './frames/fragments.ts';
import { PrimaryProxy } from './primary.ts';
import {
  assertValid,
  Bed,
  bytes,
  client,
  fromGuest,
  guest,
  overIpv4,
  overIpv6,
  promptUplink,
  synOptionBytes,
  text,
  toGuest,
} from './testbed/testbed.ts';

const views = (frames: Uint8Array[]) => frames.map((frame) => new FrameView().parse(frame));
const send = (isn: number, at: number, content: string, flags = 0) =>
  fromGuest({ sequence: (isn + 1 + at) >>> 0, ack: 5001, flags, payload: bytes(content) });

function sackBlock(left: number, right: number): Uint8Array {
  const options = Buffer.alloc(12);
  options.set([5, 10]);
  options.writeUInt32BE(left, 2);
  options.writeUInt32BE(right, 6);
  return options;
}

/** A pair whose capture holds one frame, with a secondary that is about to apply it. */
function captured(): { bed: Bed; epoch: number; table: Uint8Array; held: Uint8Array } {
  const bed = new Bed();
  bed.protect();
  bed.connect(100, 900);
  bed.pvm(send(100, 0, 'held'));
  const capture = bed.primary.capture(bed.now);
  bed.secondary.captureMarker(capture.epoch);
  bed.secondary.suspend();
  return { bed, ...capture };
}

test('sequence, ack and SACK are translated in both directions, also across the wrap of 2^32', () => {
  const nearWrap = fc.oneof(fc.nat({ max: 0xffffffff }), fc.integer({ min: 0xfffffff0, max: 0xffffffff }));
  fc.assert(
    fc.property(nearWrap, nearWrap, (pIsn, sIsn) => {
      const bed = new Bed();
      bed.protect();
      bed.connect(pIsn, sIsn);
      assert.equal(views(bed.toSecondaryGuest.slice(-1))[0]?.ack, advance(sIsn, 1));
      bed.svm(send(sIsn, 0, 'across the wrap'));
      bed.pvm(send(pIsn, 0, 'across the wrap'));
      const [last] = bed.left().slice(-1);
      assert.equal(last?.sequence, advance(pIsn, 1));
      const block = sackBlock(advance(pIsn, 6), advance(pIsn, 12));
      bed.client(toGuest({ sequence: 5001, ack: advance(pIsn, 3), flags: 0, options: block }));
      const [ack] = views(bed.toSecondaryGuest.slice(-1));
      assert.ok(ack !== undefined);
      assertValid(ack.frame);
      const edges: number[] = [];
      forEachSackEdge(ack.frame, ack.transportAt, (at) => edges.push(distance(read32(ack.frame, at), sIsn)));
      assert.deepEqual([distance(ack.ack, sIsn), ...edges], [3, 6, 12]);
      const [primary] = views(bed.toPrimaryGuest.slice(-1));
      assert.equal(primary?.ack, advance(pIsn, 3));
    }),
  );
});

test('frames of the SVM wait until the primary has announced its number', () => {
  const bed = new Bed({ isDirect: false });
  bed.protect();
  bed.client(toGuest({ sequence: 5000, flags: tcpFlag.syn, options: synOptionBytes }));
  bed.svm(fromGuest({ sequence: 70, ack: 5001, flags: tcpFlag.syn, options: synOptionBytes }));
  assert.equal(bed.toPrimary.length, 0);
  bed.pvm(fromGuest({ sequence: 4000, ack: 5001, flags: tcpFlag.syn, options: synOptionBytes }));
  assert.deepEqual(
    views(bed.toPrimary.map(({ frame }) => frame)).map((view) => view.sequence),
    [4000],
  );
});

test('a takeover sends what the client has not acknowledged, of pure ACKs only the newest', () => {
  const bed = new Bed();
  bed.protect();
  bed.connect(100, 900);
  bed.svm(send(900, 0, 'acknowledged'));
  bed.svm(send(900, 12, ' not yet'));
  bed.pvm(send(100, 0, 'acknowledged not yet'));
  bed.client(toGuest({ sequence: 5001, ack: 100 + 1 + 12, flags: 0 }));
  for (const ack of [5002, 5003]) bed.svm(fromGuest({ sequence: 900 + 21, ack, flags: 0 }));
  const { resend } = bed.secondary.takeover(bed.now);
  assert.deepEqual(
    views(resend).map((view) => [text(view), view.sequence, view.ack]),
    [
      [' not yet', 113, 5001],
      ['', 121, 5003],
    ],
  );
});

test('a datagram is sent again at a takeover unless the primary confirmed that its own has left', () => {
  const bed = new Bed();
  bed.protect();
  for (const content of ['left', 'kept']) bed.svm(buildUdp(guest, client, bytes(content)));
  bed.pvm(buildUdp(guest, client, bytes('left')));
  const { resend } = bed.secondary.takeover(bed.now);
  assert.deepEqual(
    views(resend).map((view) => String.fromCharCode(...view.frame.subarray(view.contentFrom, view.contentTo))),
    ['kept'],
  );
});

test('frames held at the capture travel with it, and are sent at a takeover unless they have left', () => {
  const { bed, epoch, table, held } = captured();
  bed.secondary.resume(epoch, table, held, bed.now);
  assert.deepEqual(views(bed.secondary.takeover(bed.now).resend).map(text), ['held']);
  bed.secondary.released(epoch);
  assert.deepEqual(bed.secondary.takeover(bed.now).resend, []);
});

test('what an SVM said before a load is not said at a takeover: the state that goes on may never have said it', () => {
  const bed = new Bed();
  bed.protect();
  bed.svm(buildUdp(guest, client, bytes('before')));
  const { epoch, table, held } = bed.primary.capture(bed.now);
  bed.secondary.captureMarker(epoch);
  bed.secondary.suspend();
  bed.secondary.resume(epoch, table, held, bed.now);
  bed.svm(buildUdp(guest, client, bytes('after')));
  const { resend } = bed.secondary.takeover(bed.now);
  assert.deepEqual(
    views(resend).map((view) => String.fromCharCode(...view.frame.subarray(view.contentFrom, view.contentTo))),
    ['after'],
  );
});

test('ingress from after the capture is replayed when the SVM is loaded, what came before is not', () => {
  const bed = new Bed();
  bed.protect();
  bed.connect(100, 900);
  bed.client(toGuest({ sequence: 5001, ack: 101, flags: 0, payload: bytes('before') }));
  const { epoch, table, held } = bed.primary.capture(bed.now);
  bed.secondary.captureMarker(epoch);
  bed.client(toGuest({ sequence: 5007, ack: 101, flags: 0, payload: bytes('after') }));
  bed.primary.commit(epoch, bed.now);
  bed.toSecondaryGuest.length = 0;
  bed.apply(epoch, table, held);
  assert.deepEqual(views(bed.toSecondaryGuest).map(text), ['after']);
  assert.equal(bed.secondary.counters.logItems, 0);
  const [view] = views(bed.toSecondaryGuest);
  assert.equal(view?.ack, 101, 'the loaded SVM has the numbers of the PVM');
});

test('a capture that comes before the last one is applied keeps its own log', () => {
  const bed = new Bed();
  bed.protect();
  const first = bed.primary.capture(bed.now);
  bed.secondary.captureMarker(first.epoch);
  bed.client(buildUdp(client, guest, bytes('1')));
  bed.primary.commit(first.epoch, bed.now);
  const second = bed.primary.capture(bed.now);
  bed.secondary.captureMarker(second.epoch);
  bed.client(buildUdp(client, guest, bytes('2')));
  bed.toSecondaryGuest.length = 0;
  bed.apply(first.epoch, first.table, first.held);
  assert.equal(bed.toSecondaryGuest.length, 2);
  bed.primary.commit(second.epoch, bed.now);
  bed.toSecondaryGuest.length = 0;
  bed.apply(second.epoch, second.table, second.held);
  assert.deepEqual(
    bed.toSecondaryGuest.map((frame) => String.fromCharCode(frame.at(-1) ?? 0)),
    ['2'],
  );
});

test('an SVM that should stand still says nothing', () => {
  const bed = new Bed({ isDirect: false });
  bed.protect();
  bed.secondary.suspend();
  bed.svm(buildUdp(guest, client, bytes('late')));
  assert.equal(bed.toPrimary.length, 0);
  assert.equal(bed.secondary.counters.dropped.standing, 1);
});

test('remus: a takeover hands the guest the ingress from after its state', () => {
  const bed = new Bed({ mode: 'remus' });
  bed.protect();
  bed.client(toGuest({ sequence: 5000, flags: tcpFlag.syn, options: synOptionBytes }));
  bed.pvm(fromGuest({ sequence: 100, ack: 5001, flags: tcpFlag.syn, options: synOptionBytes }));
  assert.equal(bed.toSecondaryGuest.length, 0);
  const { replay, resend } = bed.secondary.takeover(bed.now);
  assert.deepEqual(
    views(replay).map((view) => [view.isSyn, view.sequence]),
    [[true, 5000]],
  );
  assert.equal(resend.length, 0);
});

/** The proxy of the node that takes over, and what comes out of it on either side. */
function survivorOf(bed: Bed) {
  const { table } = bed.secondary.takeover(bed.now);
  const out: Uint8Array[] = [];
  const inward: Uint8Array[] = [];
  const survivor = new PrimaryProxy(
    {
      toNetwork: (frame) => void out.push(new Uint8Array(frame)),
      toGuest: (frame) => void inward.push(new Uint8Array(frame)),
      mirror: () => undefined,
      announceIsn: () => undefined,
      ...promptUplink,
      tolerate: () => undefined,
      confirm: () => undefined,
      wantCheckpoint: () => undefined,
      pauseGuest: () => undefined,
    },
    { mode: 'colo', compareTimeoutMs: 200, patienceMs: 200, table, now: bed.now },
  );
  return { survivor, out, inward };
}

test('after a takeover the connection goes on, and does so across a second protection and takeover', () => {
  const bed = new Bed();
  bed.protect();
  bed.connect(100, 900);
  const { survivor, out, inward } = survivorOf(bed);
  survivor.fromGuest(send(900, 0, 'on'), bed.now);
  survivor.fromNetwork(toGuest({ sequence: 5001, ack: 103, flags: 0 }), bed.now);
  assert.deepEqual(
    views(out).map((view) => view.sequence),
    [101],
  );
  assert.deepEqual(
    views(inward).map((view) => view.ack),
    [903],
  );
  const { epoch, table: second, held } = survivor.capture(bed.now);
  const next = new Bed();
  next.secondary.captureMarker(epoch);
  next.secondary.resume(epoch, second, held, next.now);
  next.secondary.fromGuest(send(900, 2, '!'), next.now);
  assert.equal(views(next.secondary.takeover(next.now).resend)[0]?.sequence, 103);
});

test('a connection that only the PVM has begun anew goes on with the numbers of the old one, and survives', () => {
  const bed = new Bed();
  bed.protect();
  bed.connect(100, 900);
  bed.pvm(fromGuest({ sequence: 400_000, flags: tcpFlag.syn, options: synOptionBytes }));
  bed.client(toGuest({ sequence: 5001, ack: 101, flags: 0, payload: bytes('question') }));
  assert.equal(views(bed.toSecondaryGuest.slice(-1))[0]?.ack, 901);
  bed.svm(send(900, 0, 'answer'));
  const { resend } = bed.secondary.takeover(bed.now);
  assert.deepEqual(
    views(resend).map((view) => [view.sequence, text(view)]),
    [[101, 'answer']],
  );
});

test('a connection that the PVM has begun anew first is compared when the SVM begins it too', () => {
  const bed = new Bed();
  bed.protect();
  bed.connect(100, 900);
  bed.left();
  const syn = (sequence: number) => fromGuest({ sequence, flags: tcpFlag.syn, options: synOptionBytes });
  bed.pvm(syn(400_000));
  bed.svm(syn(70_000));
  assert.deepEqual(
    bed.left().map((view) => view.sequence),
    [400_000],
  );
  bed.client(toGuest({ sequence: 8000, ack: 400_001, flags: tcpFlag.syn, options: synOptionBytes }));
  assert.equal(views(bed.toSecondaryGuest.slice(-1))[0]?.ack, 70_001);
});

test('a segment that comes to the guest in fragments is translated, before and after a takeover', () => {
  for (const ends of [overIpv4, overIpv6]) {
    const bed = new Bed();
    bed.protect();
    bed.connect(100, 900, 5000, ends);
    const segment = buildTcp(ends.client, ends.guest, {
      sequence: 5001,
      ack: 101,
      flags: 0,
      payload: bytes('q'.repeat(200)),
    });
    const cut = (id: number) => buildFragments(segment, id, 64);
    const wholeOf = (frames: Uint8Array[]) => {
      const pieces = frames.map((frame, order) => pieceOf(new FrameView().parse(frame), order));
      const whole = assemble(pieces) ?? assert.fail('not whole');
      assertValid(whole);
      return new FrameView().parse(whole);
    };
    bed.toSecondaryGuest.length = 0;
    for (const fragment of cut(1)) bed.client(fragment);
    const arrived = wholeOf(bed.toSecondaryGuest);
    assert.deepEqual([arrived.ack, text(arrived)], [901, 'q'.repeat(200)], ends.name);
    const { survivor, inward } = survivorOf(bed);
    for (const fragment of cut(2)) survivor.fromNetwork(fragment, bed.now);
    assert.equal(wholeOf(inward).ack, 901, ends.name);
  }
});

test('what the primary has confirmed is not said again, whatever number its frame has, also across 2^32', () => {
  for (const from of [1, 2 ** 32 - 2]) {
    const bed = new Bed();
    bed.protect();
    Reflect.set(bed.secondary, 'nextId', from);
    const say = (content: string) => buildUdp(guest, client, bytes(content));
    for (const content of ['one', 'two', 'three', 'four']) {
      bed.svm(say(content));
      if (content !== 'two') bed.pvm(say(content));
    }
    const ids = [0, 1, 2, 3].map((index) => (from + index) >>> 0);
    assert.deepEqual(bed.numbers, ids);
    const { resend } = bed.secondary.takeover(bed.now);
    assert.deepEqual(
      resend.map((frame) => Buffer.from(frame.subarray(42)).toString()),
      ['two'],
    );
  }
});

test('a number is not given to a second frame while the first may be confirmed', () => {
  const bed = new Bed({ isDirect: false });
  bed.protect();
  const say = (content: string) => bed.svm(buildUdp(guest, client, bytes(content)));
  Reflect.set(bed.secondary, 'nextId', 5);
  say('old');
  Reflect.set(bed.secondary, 'nextId', 4);
  say('before');
  say('behind');
  assert.deepEqual(
    bed.toPrimary.map(({ id }) => id),
    [5, 4, 6],
  );
});

test('held frames that have left before the apply was done are not sent at a takeover', () => {
  const { bed, epoch, table, held } = captured();
  // The primary says so as soon as it has the commit, and the apply takes longer.
  bed.secondary.released(epoch);
  bed.secondary.resume(epoch, table, held, bed.now);
  assert.deepEqual(bed.secondary.takeover(bed.now).resend, []);
});
