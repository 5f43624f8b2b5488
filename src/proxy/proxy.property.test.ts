// The promises of the proxy, with random conversations, checkpoints and deaths.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { buildTcp } from '../packet/build.ts';
import { advance } from '../packet/sequence.ts';
import { tcpFlag } from '../packet/tcp.ts';
import { proxyLimits } from './limits.ts';
import { allEnds, Bed, fromGuest, Reassembly } from './testbed/testbed.ts';
import { clientIsn, Model, operations } from './testbed/testbed-model.ts';

const anyIsn = fc.oneof(fc.nat({ max: 0xffffffff }), fc.integer({ min: 0xffffffc0, max: 0xffffffff }));

interface Cut {
  from: number;
  to: number;
}

/** [0, length) cut at random, with some repetitions and neighbours exchanged. */
function cuts(length: number, sizes: number[], odd: number[]): Cut[] {
  const pieces: Cut[] = [];
  for (let from = 0, at = 0; from < length; at += 1) {
    const to = Math.min(length, from + (sizes[at % sizes.length] ?? 1));
    pieces.push({ from, to });
    from = to;
  }
  for (const one of odd) {
    const at = one % pieces.length;
    const piece = pieces[at];
    const next = pieces[at + 1];
    if (piece === undefined) continue;
    if (one % 3 === 0 || next === undefined) pieces.splice(at, 0, { from: Math.max(0, piece.from - 3), to: piece.to });
    else pieces.splice(at, 2, next, piece);
  }
  return pieces;
}

const sizes = fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 8 });
const odd = fc.array(fc.nat({ max: 1000 }), { maxLength: 6 });

test('two equal copies, cut, repeated and reordered at will: exactly the stream of the primary leaves', () => {
  const content = fc.uint8Array({ minLength: 1, maxLength: 300 });
  const sides = fc.record({
    ends: fc.constantFrom(...allEnds),
    pIsn: anyIsn,
    sIsn: anyIsn,
    p: sizes,
    s: sizes,
    pOdd: odd,
    sOdd: odd,
  });
  fc.assert(
    fc.property(content, sides, fc.array(fc.boolean()), (stream, side, turns) => {
      const bed = new Bed();
      bed.protect();
      const { guest, client } = side.ends;
      bed.connect(side.pIsn, side.sIsn, 5000, side.ends);
      const piece = (isn: number, { from, to }: Cut) =>
        buildTcp(guest, client, {
          sequence: advance(isn, 1 + from),
          ack: clientIsn + 1,
          flags: to === stream.length ? tcpFlag.fin : 0,
          payload: stream.subarray(from, to),
        });
      const ps = cuts(stream.length, side.p, side.pOdd);
      const ss = cuts(stream.length, side.s, side.sOdd);
      for (let at = 0; ps.length > 0 || ss.length > 0; at += 1) {
        const isPrimary = ss.length === 0 || (ps.length > 0 && (turns[at % turns.length] ?? at % 2 === 0));
        const next = isPrimary ? ps.shift() : ss.shift();
        if (next === undefined) continue;
        if (isPrimary) bed.pvm(piece(side.pIsn, next));
        else bed.svm(piece(side.sIsn, next));
      }
      const seen = new Reassembly(side.pIsn);
      for (const frame of bed.network) seen.take(frame);
      assert.deepEqual(seen.stream(), stream);
      assert.equal(seen.finAt, stream.length);
      assert.equal(bed.wanted.length, 0);
      assert.equal(bed.primary.counters.heldBytes, 0);
      assert.equal(bed.primary.counters.aheadBytes, 0);
    }),
    { numRuns: 300 },
  );
});

test('two copies that differ in one byte: that byte never leaves before a commit', () => {
  const content = fc.uint8Array({ minLength: 1, maxLength: 200 });
  fc.assert(
    fc.property(content, fc.nat(), sizes, sizes, fc.array(fc.boolean()), (stream, place, p, s, turns) => {
      const at = place % stream.length;
      const other = Uint8Array.from(stream);
      other[at] = (other[at] ?? 0) ^ 1;
      const bed = new Bed();
      bed.protect();
      bed.connect(77, 99);
      const ps = cuts(stream.length, p, []);
      const ss = cuts(stream.length, s, []);
      const piece = (isn: number, from: Uint8Array, cut: Cut) =>
        fromGuest({ sequence: isn + 1 + cut.from, ack: 5001, flags: 0, payload: from.subarray(cut.from, cut.to) });
      for (let turn = 0; ps.length > 0 || ss.length > 0; turn += 1) {
        const cut = (turns[turn % turns.length] ?? turn % 2 === 0) || ss.length === 0 ? ps.shift() : undefined;
        if (cut !== undefined) bed.pvm(piece(77, stream, cut));
        else bed.svm(piece(99, other, ss.shift() ?? { from: 0, to: 1 }));
      }
      const seen = new Reassembly(77);
      for (const frame of bed.network) seen.take(frame);
      assert.equal(seen.stream().length, at);
      assert.deepEqual(
        bed.primary.divergences().map(({ kind, offset }) => [kind, offset]),
        [['payload', at]],
      );
      bed.checkpoint();
      for (const frame of bed.network) seen.take(frame);
      assert.deepEqual(seen.stream(), stream);
    }),
    { numRuns: 200 },
  );
});

test('nothing leaves that the survivor could not honour, and the death of either side is not noticed', () => {
  const step = fc.tuple(fc.constantFrom(...operations), fc.integer({ min: 1, max: 30 }));
  const steps = fc.array(step, { maxLength: 120, size: 'max' });
  const ways = fc.record({ ends: fc.constantFrom(...allEnds), times: fc.record({ p: anyIsn, s: anyIsn }) });
  fc.assert(
    fc.property(anyIsn, anyIsn, steps, fc.boolean(), ways, (pIsn, sIsn, all, isPrimaryDead, { ends, times }) => {
      const model = new Model(pIsn, sIsn, ends, times);
      for (const [operation, amount] of all) model.run(operation, amount);
      if (isPrimaryDead) model.primaryDies();
      else model.secondaryDies();
    }),
    { numRuns: 1000 },
  );
});

test('no frame of anybody makes a proxy throw or grow without bound', () => {
  const valid = fromGuest({ sequence: 78, ack: 5001, flags: 0, payload: new Uint8Array(60) });
  const mutation = fc.array(fc.tuple(fc.nat({ max: 70 }), fc.nat({ max: 255 })), { maxLength: 5 });
  const frame = fc.oneof(
    fc.uint8Array({ maxLength: 80 }),
    mutation.map((changes) => {
      const copy = Uint8Array.from(valid);
      for (const [at, value] of changes) copy[at] = value;
      return copy;
    }),
  );
  const step = fc.tuple(fc.constantFrom('pvm', 'svm', 'client', 'checkpoint', 'pass', 'resume'), frame);
  fc.assert(
    fc.property(fc.array(step, { maxLength: 80, size: 'max' }), (steps) => {
      const bed = new Bed({ onLeave: () => undefined });
      bed.protect();
      bed.connect(77, 99);
      for (const [kind, bytes] of steps) {
        if (kind === 'checkpoint') bed.checkpoint();
        else if (kind === 'pass') bed.pass(100);
        else if (kind === 'resume') bed.secondary.resume(1, bytes, bytes, bed.now);
        else bed[kind](bytes);
      }
      const { heldBytes, aheadBytes } = bed.primary.counters;
      assert.ok(heldBytes >= 0 && heldBytes <= 80 * 200 && aheadBytes >= 0 && aheadBytes <= 80 * 200);
      bed.checkpoint();
      assert.equal(bed.primary.counters.heldBytes, 0);
      assert.equal(bed.primary.counters.heldFrames, 0);
      assert.equal(bed.primary.counters.aheadBytes, 0);
      assert.ok(bed.primary.divergences().length <= proxyLimits.divergencesKept);
    }),
    { numRuns: 400 },
  );
});
