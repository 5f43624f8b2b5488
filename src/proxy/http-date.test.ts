// Times in headers of answers: what may leave although the two guests said another second, that nothing else may, and
// that no client ever gets a mixture of the two.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { buildTcp } from '../packet/build.ts';
import { FrameView } from '../packet/frame-view.ts';
import { advance } from '../packet/sequence.ts';
import { tcpFlag } from '../packet/tcp.ts';
import { areAsGood, dateAround } from './compare/http-date.ts';
import { proxyLimits } from './limits.ts';
import { Patches, packPatch, patchesOf, tableOf, unpackPatch } from './patches.ts';
import { PrimaryProxy } from './primary.ts';
import {
  assertValid,
  Bed,
  type BedOptions,
  bytes,
  overIpv4,
  overIpv6,
  promptUplink,
  Reassembly,
  text,
  wallMs,
} from './testbed/testbed.ts';

const pIsn = 1000;
const sIsn = 9000;
const dateOf = (offsetMs: number) => new Date(wallMs + offsetMs).toUTCString();
const answer = (date: string, body = 'hello') =>
  `HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: ${date}\r\nContent-Length: ${body.length}\r\n\r\n${body}`;

function connected(options: BedOptions = {}): Bed {
  const bed = new Bed(options);
  bed.protect();
  bed.connect(pIsn, sIsn);
  bed.left();
  return bed;
}

const say = (isn: number, at: number, content: string, ends = overIpv4) =>
  buildTcp(ends.guest, ends.client, {
    ...{ sequence: isn + 1 + at, ack: 5001, flags: tcpFlag.psh, window: 1000, payload: bytes(content) },
  });

const seen = (frames: readonly Uint8Array[]) => {
  const all = new Reassembly(pIsn);
  for (const frame of frames) all.take(frame);
  return Buffer.from(all.stream()).toString('latin1');
};

test('an answer that differs in the second of its Date header leaves as the primary said it, without a checkpoint', () => {
  for (const isPrimaryFirst of [true, false]) {
    const bed = connected();
    const [ours, theirs] = [answer(dateOf(0)), answer(dateOf(1000))];
    if (isPrimaryFirst) bed.pvm(say(pIsn, 0, ours));
    bed.svm(say(sIsn, 0, theirs));
    if (!isPrimaryFirst) bed.pvm(say(pIsn, 0, ours));
    assert.equal(seen(bed.network), ours);
    // Further answers on the connection too, however the secondary cuts them.
    bed.pvm(say(pIsn, ours.length, answer(dateOf(-1000))));
    for (const [from, to] of [
      [0, 60],
      [60, 62],
      [62, 500],
    ] as const)
      bed.svm(say(sIsn, ours.length + from, answer(dateOf(0)).slice(from, to)));
    assert.equal(seen(bed.network), ours + answer(dateOf(-1000)));
    assert.deepEqual([bed.wanted, bed.primary.divergences(), bed.primary.counters.datesTolerated], [[], [], 2]);
    for (const frame of bed.network) assertValid(frame);
  }
});

test('what is no Date header of an answer, or no such difference, is a divergence', () => {
  const now = dateOf(0);
  const later = dateOf(1000);
  const cases: [string, string, string][] = [
    ['two seconds', answer(now), answer(dateOf(2000))],
    ['not of now', answer(dateOf(60_000)), answer(dateOf(61_000))],
    ['in a body', `HTTP/1.1 200 OK\r\n\r\nDate: ${now}\r\n`, `HTTP/1.1 200 OK\r\n\r\nDate: ${later}\r\n`],
    ['another header', answer(now).replace('Date', 'Last'), answer(later).replace('Date', 'Last')],
    ['no status line', `Date: ${now}\r\n\r\n`, `Date: ${later}\r\n\r\n`],
    ['mail', `From: a\r\nDate: ${now}\r\n\r\n`, `From: a\r\nDate: ${later}\r\n\r\n`],
    ['another form', answer(`${now}0`), answer(`${later}0`)],
    ['a false weekday', answer(now.replace('Sun', 'Mon')), answer(later)],
    ['something else beside it', answer(now, 'hello'), answer(later, 'hellO')],
  ];
  for (const [name, ours, theirs] of cases) {
    const bed = connected();
    bed.pvm(say(pIsn, 0, ours));
    bed.svm(say(sIsn, 0, theirs));
    assert.equal(bed.primary.divergences().length, 1, name);
    assert.ok(seen(bed.network).length < ours.length, name);
    bed.checkpoint();
    assert.equal(seen(bed.network), ours, name);
  }
});

test('dates: exact tolerates nothing, and so does a proxy that knows no time', () => {
  const exact = { timestamps: 'clamped', acks: 'merged', window: 'exact', dates: 'exact' } as const;
  for (const more of [{ similarity: exact }, { wallMs: () => wallMs + 10_000 }]) {
    const bed = connected({ more });
    bed.pvm(say(pIsn, 0, answer(dateOf(0))));
    bed.svm(say(sIsn, 0, answer(dateOf(1000))));
    assert.deepEqual([bed.primary.divergences().length, bed.asked.length], [1, 0]);
  }
});

test('nothing of another time leaves before the secondary has it, and an answer of an older epoch lets nothing leave', () => {
  const bed = connected({ isDirect: false });
  const ours = answer(dateOf(0));
  bed.pvm(say(pIsn, 0, ours));
  bed.svm(say(sIsn, 0, answer(dateOf(1000))));
  bed.deliver();
  const [patch] = bed.asked;
  assert.ok(patch !== undefined);
  const before = seen(bed.network);
  assert.ok(!before.includes(dateOf(0)) && ours.startsWith(before));
  bed.primary.tolerated(packPatch({ ...(unpackPatch(patch) ?? assert.fail()), epoch: 7 }), bed.now);
  bed.primary.tolerated(new Uint8Array(3), bed.now);
  assert.equal(seen(bed.network), before);
  bed.checkpoint();
  assert.equal(seen(bed.network), ours);
  bed.primary.tolerated(patch, bed.now);
  assert.equal(bed.primary.counters.datesTolerated, 0);
  assert.equal(bed.secondary.tolerate(patch), false, 'the SVM of now said no such thing');
});

test('an answer that never comes costs a checkpoint', () => {
  const bed = connected({ isDirect: false });
  bed.pass(1000);
  bed.pvm(say(pIsn, 0, answer(dateOf(0))));
  bed.svm(say(sIsn, 0, answer(dateOf(1000))));
  bed.deliver();
  bed.pass(250);
  assert.deepEqual(
    bed.wanted.map(({ kind }) => kind),
    ['timeout'],
  );
});

/** The proxy of the survivor of `bed`, with what it sends at once. */
function survivorOf(bed: Bed) {
  const { table, resend } = bed.secondary.takeover(bed.now);
  const out = [...resend];
  const survivor = new PrimaryProxy(
    {
      toNetwork: (frame) => void out.push(new Uint8Array(frame)),
      ...promptUplink,
      ...{ toGuest: () => undefined, mirror: () => undefined, announceIsn: () => undefined, confirm: () => undefined },
      ...{ tolerate: () => undefined, wantCheckpoint: () => undefined, pauseGuest: () => undefined },
    },
    { mode: 'colo', compareTimeoutMs: 200, patienceMs: 200, table, now: bed.now },
  );
  return { survivor, out, table };
}

test('no client gets a mixture: what a survivor sends again has the times of the primary, wherever it is cut', () => {
  const place = fc.nat({ max: answer(dateOf(0)).length - 1 });
  const cuts = fc.array(place, { maxLength: 4 });
  // At the turn of a minute a mixture would be a time that neither has said.
  const wall = Date.parse('1994-11-06T08:49:59Z');
  const [ours, theirs] = [0, 1000].map((ms) => answer(new Date(wall + ms).toUTCString())) as [string, string];
  fc.assert(
    fc.property(fc.constantFrom(overIpv4, overIpv6), cuts, place, fc.boolean(), (ends, all, lost, isSecond) => {
      const bed = new Bed({ more: { wallMs: () => wall } });
      bed.protect();
      bed.connect(pIsn, sIsn, 5000, ends);
      bed.network.length = 0;
      bed.pvm(say(pIsn, 0, ours, ends));
      bed.svm(say(sIsn, 0, theirs, ends));
      assert.equal(seen(bed.network), ours);
      // The client has the beginning, and has acknowledged it.
      const ack = buildTcp(ends.client, ends.guest, { sequence: 5001, ack: advance(pIsn, 1 + lost), flags: 0 });
      bed.client(ack);
      const { survivor, out, table } = survivorOf(bed);
      survivor.fromNetwork(Uint8Array.from(ack), bed.now);
      // Its guest repeats what it thinks that it said, in pieces.
      const borders = [lost, ...all.filter((cut) => cut > lost).sort((a, b) => a - b), theirs.length];
      const pieces = borders.slice(1).map((to, index) => [borders[index] ?? 0, to] as const);
      for (const [from, to] of pieces)
        if (to > from) survivor.fromGuest(say(sIsn, from, theirs.slice(from, to), ends), bed.now);
      for (const frame of out) assertValid(frame);
      const client = new Reassembly(pIsn);
      for (const frame of [say(pIsn, 0, ours.slice(0, lost), ends), ...out]) client.take(frame);
      assert.equal(Buffer.from(client.stream()).toString('latin1'), ours);
      if (!isSecond) return;
      // Its next secondary is told with the first checkpoint.
      survivor.startMirroring();
      const next = new Bed({ isDirect: false });
      const captured = survivor.capture(bed.now);
      assert.equal(next.secondary.wrongWith(captured), undefined);
      assert.equal(patchesOf(captured.table).length, patchesOf(table).length);
      next.secondary.resume(captured.epoch, captured.table, captured.held, bed.now);
      next.svm(say(sIsn, lost, theirs.slice(lost), ends));
      const again = new FrameView().parse(next.toPrimary.at(-1)?.frame ?? assert.fail());
      assert.equal(text(again), ours.slice(lost));
    }),
    { numRuns: 300 },
  );
});

test('whatever differs besides, nothing but such a second ever leaves as the primary said it', () => {
  const parts = fc.record({
    offset: fc.integer({ min: -4, max: 4 }),
    apart: fc.integer({ min: -3, max: 3 }),
    flip: fc.option(fc.nat({ max: 200 })),
    name: fc.constantFrom('Date', 'date', 'Expires', 'X-Date'),
    body: fc.string({ maxLength: 20, unit: 'grapheme-ascii' }),
    cut: fc.nat({ max: 120 }),
  });
  fc.assert(
    fc.property(parts, ({ offset, apart, flip, name, body, cut }) => {
      const make = (ms: number) => answer(dateOf(ms), body).replace('Date', name);
      const ours = make(offset * 1000);
      const theirs = Buffer.from(make((offset + apart) * 1000), 'latin1');
      if (flip !== null && flip < theirs.length) theirs[flip] = (theirs[flip] ?? 0) ^ 1;
      const bed = connected();
      bed.pvm(say(pIsn, 0, ours));
      const other = theirs.toString('latin1');
      for (const [from, to] of [
        [0, Math.min(cut, other.length)],
        [Math.min(cut, other.length), other.length],
      ] as const)
        if (to > from) bed.svm(say(sIsn, from, other.slice(from, to)));
      const left = seen(bed.network);
      assert.ok(ours.startsWith(left));
      const value = ours.toLowerCase().indexOf('\r\ndate: ') + 8;
      for (let at = 0; at < left.length; at += 1) {
        if (left[at] === other[at]) continue;
        const [one, two] = [ours, other].map((said) => said.slice(value, value + 29)) as [string, string];
        assert.ok(at >= value && at < value + 29 && areAsGood(one, two, wallMs), `byte ${at} of ${left}`);
      }
    }),
    { numRuns: 1000 },
  );
});

test('patches are bounded, end with the acknowledgement or the connection, and bytes that are none are refused', () => {
  const bed = connected();
  bed.pvm(say(pIsn, 0, answer(dateOf(0))));
  bed.svm(say(sIsn, 0, answer(dateOf(1000))));
  const patch = unpackPatch(bed.asked[0] ?? assert.fail()) ?? assert.fail();
  const patches = new Patches();
  for (let count = 0; count < proxyLimits.patchesMax; count += 1)
    assert.ok(patches.add({ ...patch, sequence: patch.sequence + 100 * count }));
  assert.equal(patches.add(patch), false);
  patches.acked(patch.key, patch.sequence + 28);
  assert.equal(patches.encode().length, proxyLimits.patchesMax);
  patches.acked(patch.key, patch.sequence + 29);
  assert.equal(patches.encode().length, proxyLimits.patchesMax - 1);
  patches.forget(patch.key);
  assert.ok(patches.isEmpty);
  const { table } = bed.secondary.takeover(bed.now);
  assert.deepEqual([tableOf(table).length < table.length, patchesOf(table).length], [true, 1]);
  const held = new Uint8Array(0);
  assert.notEqual(bed.secondary.wrongWith({ table: table.subarray(0, table.length - 1), held }), undefined);
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 100 }), (noise) => {
      unpackPatch(noise);
      patchesOf(Uint8Array.from([...tableOf(table), ...noise]));
      bed.secondary.tolerate(noise);
      bed.primary.tolerated(noise, bed.now);
    }),
  );
});

test('a Date header is found in the head of an answer alone', () => {
  const at = (said: string, index: number) => dateAround(Buffer.from(said, 'latin1'), 0, said.length, index);
  const said = answer(dateOf(0));
  const value = said.indexOf('Date: ') + 6;
  for (const [index, found] of [
    [value - 1, undefined],
    [value, value],
    [value + 28, value],
    [value + 29, undefined],
  ] as const)
    assert.equal(at(said, index), found);
  assert.equal(at(said.slice(0, value + 30), value), undefined, 'its line is not whole');
});
