// Two copies of one conversation that differ in one thing, anywhere and with the frames of both in any order between
// each other: what differs never leaves before a commit, and leaves by one. (A differing byte of a TCP stream is in
// proxy.property.test.ts.)

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { buildIcmpEcho, buildUdp } from '../packet/build.ts';
import { FrameView } from '../packet/frame-view.ts';
import { tcpFlag } from '../packet/tcp.ts';
import { Bed, client, fromGuest, guest, Reassembly } from './testbed/testbed.ts';

const pIsn = 77;
const sIsn = 99;
const sizes = fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 8 });
const turns = fc.array(fc.boolean(), { minLength: 1, maxLength: 50 });

/** Gives both sides' frames, each in its order, in turns. */
function play(bed: Bed, primary: Uint8Array[], secondary: Uint8Array[], order: readonly boolean[]): void {
  const [ps, ss] = [[...primary], [...secondary]];
  for (let at = 0; ps.length > 0 || ss.length > 0; at += 1) {
    const isPrimary = ss.length === 0 || (ps.length > 0 && order[at % order.length] === true);
    if (isPrimary) bed.pvm(ps.shift() ?? assert.fail());
    else bed.svm(ss.shift() ?? assert.fail());
  }
}

function connected(): Bed {
  const bed = new Bed();
  bed.protect();
  bed.connect(pIsn, sIsn);
  bed.network.length = 0;
  return bed;
}

/** The stream in segments, the last one with `flags`, or an RST behind all of them. */
function segments(isn: number, stream: Uint8Array, lengths: readonly number[], end: 'fin' | 'rst' | 'none') {
  const frames: Uint8Array[] = [];
  for (let from = 0, turn = 0; from < stream.length; turn += 1) {
    const to = Math.min(stream.length, from + (lengths[turn % lengths.length] ?? 1));
    const flags = end === 'fin' && to === stream.length ? tcpFlag.fin : 0;
    frames.push(fromGuest({ sequence: isn + 1 + from, ack: 5001, flags, payload: stream.subarray(from, to) }));
    from = to;
  }
  const sequence = isn + 1 + stream.length;
  if (end === 'rst') frames.push(fromGuest({ sequence, ack: 5001, flags: tcpFlag.rst | tcpFlag.ack }));
  return frames;
}

function assembled(bed: Bed): Reassembly {
  const seen = new Reassembly(pIsn);
  for (const frame of bed.network) seen.take(frame);
  return seen;
}

const resets = (bed: Bed) => bed.network.filter((frame) => new FrameView().parse(frame).isReset).length;
const stream = fc.uint8Array({ minLength: 2, maxLength: 200 });

test('the FIN at another place: neither it nor a byte beyond the shorter stream leaves before a commit', () => {
  fc.assert(
    fc.property(stream, fc.nat(), fc.boolean(), sizes, sizes, turns, (whole, place, isPrimaryShorter, p, s, order) => {
      const shorter = whole.subarray(0, 1 + (place % (whole.length - 1)));
      const bed = connected();
      const [primary, secondary] = isPrimaryShorter ? [shorter, whole] : [whole, shorter];
      play(bed, segments(pIsn, primary, p, 'fin'), segments(sIsn, secondary, s, 'fin'), order);
      assert.equal(assembled(bed).finAt, undefined);
      assert.equal(assembled(bed).stream().length, shorter.length);
      assert.deepEqual(
        bed.primary.divergences().map(({ kind, offset }) => [kind, offset]),
        [['fin', shorter.length]],
      );
      bed.checkpoint();
      assert.deepEqual([assembled(bed).finAt, assembled(bed).stream()], [primary.length, primary]);
    }),
    { numRuns: 200 },
  );
});

test('a reset on one side alone: it does not leave before a commit, nor does what the other side goes on with', () => {
  fc.assert(
    fc.property(stream, fc.nat(), fc.boolean(), sizes, turns, (whole, place, isPrimaryReset, lengths, order) => {
      const reset = whole.subarray(0, 1 + (place % (whole.length - 1)));
      const bed = connected();
      const ends = segments(isPrimaryReset ? pIsn : sIsn, reset, lengths, 'rst');
      const goesOn = segments(isPrimaryReset ? sIsn : pIsn, whole, lengths, 'none');
      if (isPrimaryReset) play(bed, ends, goesOn, order);
      else play(bed, goesOn, ends, order);
      bed.pass(1000);
      assert.equal(resets(bed), 0);
      assert.equal(assembled(bed).stream().length, reset.length);
      assert.ok(bed.wanted.length > 0);
      bed.checkpoint();
      assert.equal(resets(bed), isPrimaryReset ? 1 : 0);
      assert.deepEqual(assembled(bed).stream(), isPrimaryReset ? reset : whole);
    }),
    { numRuns: 200 },
  );
});

/** Frames of a flow, of which one differs on the secondary; what is left is named by its place. */
function datagramsThatDiffer(frameOf: (index: number, isOdd: boolean) => Uint8Array, count: number, odd: number) {
  const bed = new Bed();
  bed.protect();
  const primary = Array.from({ length: count }, (_, index) => frameOf(index, false));
  const secondary = Array.from({ length: count }, (_, index) => frameOf(index, index === odd));
  const names = primary.map((frame) => Buffer.from(frame).toString('hex'));
  const left = () => bed.network.map((frame) => names.indexOf(Buffer.from(frame).toString('hex')));
  return { bed, primary, secondary, left };
}

function assertOneStays(each: ReturnType<typeof datagramsThatDiffer>, odd: number, order: readonly boolean[]): void {
  play(each.bed, each.primary, each.secondary, order);
  each.bed.pass(1000);
  assert.ok(!each.left().includes(odd), 'it has left');
  assert.ok(each.bed.wanted.length > 0);
  each.bed.checkpoint();
  assert.deepEqual(
    each.left(),
    each.primary.map((_, index) => index),
  );
}

test('one byte of one datagram differs: that datagram leaves by a commit alone, and all in order', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 12 }), fc.nat(), fc.nat({ max: 29 }), turns, (count, place, at, order) => {
      const payload = (index: number) => new Uint8Array(30).fill(index);
      const frame = (index: number, isOdd: boolean) => {
        const bytes = payload(index);
        if (isOdd) bytes[at] = 0xff;
        return buildUdp(guest, client, bytes);
      };
      const odd = place % count;
      assertOneStays(datagramsThatDiffer(frame, count, odd), odd, order);
    }),
    { numRuns: 200 },
  );
});

test('one ICMP answer has another identifier: it leaves by a commit alone, and all in order', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 12 }), fc.nat(), turns, (count, place, order) => {
      const frame = (index: number, isOdd: boolean) =>
        buildIcmpEcho(guest, client, { reply: true, id: isOdd ? 8 : 7, sequence: index });
      const odd = place % count;
      assertOneStays(datagramsThatDiffer(frame, count, odd), odd, order);
    }),
    { numRuns: 200 },
  );
});
