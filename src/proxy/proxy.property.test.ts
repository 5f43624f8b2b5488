// The promises of the proxy, with random conversations, checkpoints and deaths.
//
// The model is independent of the proxy: it knows what the PVM said, what the SVM of this epoch said, and what the last
// committed capture covers, and judges every frame at the moment it leaves.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { buildTcp, buildUdp, timestampsOption } from '../packet/build.ts';
import { FrameView } from '../packet/frame-view.ts';
import { advance, distance } from '../packet/sequence.ts';
import { tcpFlag } from '../packet/tcp.ts';
import { proxyLimits } from './limits.ts';
import { PrimaryProxy } from './primary.ts';
import { allEnds, assertValid, Bed, type Ends, fromGuest, Reassembly } from './testbed.ts';

const anyIsn = fc.oneof(fc.nat({ max: 0xffffffff }), fc.integer({ min: 0xffffffc0, max: 0xffffffff }));
const clientIsn = 5000;

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
      const other = stream.slice();
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

const operations = [
  'pSend',
  'pSend',
  'pSend',
  'pAgain',
  'sSend',
  'sSend',
  'sSend',
  'sFlip',
  'clientSend',
  'clientAck',
  'pAck',
  'sAck',
  'pOpens',
  'sOpens',
  'pTick',
  'sTick',
  'pUdp',
  'sUdp',
  'capture',
  'commit',
  'abort',
  'apply',
  'deliver',
  'gate',
  'pass',
] as const;
type Operation = (typeof operations)[number];

const streamBytes = 400;

/** One copy of the guest, as far as the network can tell. */
interface Copy {
  isn: number;
  /** Bytes of the stream sent, bytes of the client received, datagrams sent. */
  sent: number;
  received: number;
  datagrams: number;
  /** Where its stream is another one than the PVM's. */
  flips: Set<number>;
  /** Right edge of its window, as bytes of the client. */
  edge: number;
  /** What it writes as TSval. */
  time: number;
}

const firstEdge = 30_000;

function receive(copy: Copy, bytes: number): void {
  copy.received = bytes;
  copy.edge = Math.max(copy.edge, bytes);
}

class Model {
  readonly stream = Uint8Array.from({ length: streamBytes }, (_, at) => (at * 7 + (at >> 4)) & 255);
  readonly bed: Bed;
  readonly seen: Reassembly;
  readonly p: Copy;
  s: Copy;
  clientSent = 0;
  datagramsSeen = new Set<number>();
  ackSeen = 0;
  /** What the SVM of this epoch has produced. */
  produced = new Map<number, number>();
  producedDatagrams = new Set<number>();
  producedAck = 0;
  producedEdge = firstEdge;
  /** What the last committed capture covers. */
  covered = { sent: 0, ack: 0, datagrams: 0, edge: firstEdge };
  /** The latest TSval that the client has seen. */
  timeSeen: number | undefined;
  readonly ends: Ends;
  readonly view = new FrameView();
  flight: { epoch: number; table: Uint8Array; held: Uint8Array; p: Copy } | undefined;
  unapplied: { epoch: number; table: Uint8Array; held: Uint8Array; p: Copy } | undefined;
  isOpen = true;
  isProtected = true;

  readonly firstTime: number;

  constructor(pIsn: number, sIsn: number, ends: Ends, times: { p: number; s: number }) {
    this.firstTime = times.p;
    this.ends = ends;
    const time = times.p;
    this.p = { isn: pIsn, sent: 0, received: 0, datagrams: 0, flips: new Set(), edge: firstEdge, time };
    this.s = { ...this.p, isn: sIsn, flips: new Set(), time: times.s };
    this.seen = new Reassembly(pIsn);
    this.bed = new Bed({ isDirect: false, onLeave: (frame) => this.judge(frame) });
    this.bed.protect();
    this.bed.client(this.clientSegment({ sequence: clientIsn, flags: tcpFlag.syn }));
    this.bed.pvm(this.syn(this.p));
    this.bed.svm(this.syn(this.s));
    this.bed.deliver();
    this.bed.client(this.clientSegment({ sequence: clientIsn + 1, ack: advance(pIsn, 1), flags: 0 }));
  }

  syn({ isn, time }: Copy): Uint8Array {
    const window = firstEdge;
    const options = timestampsOption(time, 0);
    const { guest, client } = this.ends;
    return buildTcp(guest, client, { sequence: isn, ack: clientIsn + 1, flags: tcpFlag.syn, window, options });
  }

  clientSegment(segment: { sequence: number; ack?: number; flags: number; payload?: Uint8Array }): Uint8Array {
    const options = timestampsOption(77, this.timeSeen ?? 0);
    return buildTcp(this.ends.client, this.ends.guest, { ...segment, options });
  }

  datagram(id: number): Uint8Array {
    return buildUdp(this.ends.guest, this.ends.client, Uint8Array.of(id & 255));
  }

  byteOf(copy: Copy, at: number): number {
    return (this.stream[at] ?? 0) ^ (copy.flips.has(at) ? 0xff : 0);
  }

  /** The output rule. */
  judge(frame: Uint8Array): void {
    assertValid(frame);
    const view = new FrameView().parse(frame);
    if (view.kind === 'udp') {
      const id = frame[view.contentFrom] ?? 0;
      this.datagramsSeen.add(id);
      if (!this.isProtected) return;
      assert.ok(id < this.covered.datagrams || this.producedDatagrams.has(id), `datagram ${id} is not honoured`);
      return;
    }
    this.seen.take(frame);
    const { timestamp } = view;
    assert.ok(this.timeSeen === undefined || distance(timestamp, this.timeSeen) >= 0, 'TSval goes back');
    this.timeSeen = timestamp;
    const ack = distance(view.ack, clientIsn + 1);
    this.ackSeen = Math.max(this.ackSeen, ack);
    if (!this.isProtected) return;
    assert.ok(ack <= Math.max(this.covered.ack, this.producedAck), `ack of ${ack} is not honoured`);
    assert.ok(distance(timestamp, this.firstTime) >= 0, 'one timeline leaves: that of the primary');
    const edge = ack + view.window;
    assert.ok(edge <= Math.max(this.covered.edge, this.producedEdge), `a window up to ${edge} is not honoured`);
    const from = distance(view.sequence, advance(this.p.isn, 1));
    for (let at = 0; at < view.payloadBytes; at += 1) {
      const value = frame[view.payloadAt + at];
      const isHonoured = from + at < this.covered.sent || this.produced.get(from + at) === value;
      assert.ok(isHonoured, `byte ${from + at} is not honoured`);
    }
  }

  frameOf(copy: Copy, from: number, to: number): Uint8Array {
    const payload = Uint8Array.from({ length: to - from }, (_, at) => this.byteOf(copy, from + at));
    const ack = clientIsn + 1 + copy.received;
    const window = Math.min(copy.edge - copy.received, 0xffff);
    const options = timestampsOption(copy.time, 77);
    const { guest, client } = this.ends;
    return buildTcp(guest, client, { sequence: advance(copy.isn, 1 + from), ack, flags: 0, window, options, payload });
  }

  run(operation: Operation, amount: number): void {
    const { bed, p, s } = this;
    switch (operation) {
      case 'pSend': {
        const to = Math.min(streamBytes, p.sent + amount);
        const from = p.sent;
        p.sent = to;
        if (to > from) bed.pvm(this.frameOf(p, from, to));
        return;
      }
      case 'pAgain':
        if (p.sent > 0) bed.pvm(this.frameOf(p, Math.max(0, p.sent - amount), p.sent));
        return;
      case 'sSend':
        this.secondarySends(s, amount);
        return;
      case 'sFlip':
        if (amount > 24 && this.unapplied === undefined) s.flips.add(s.sent + (amount % 5));
        return;
      case 'clientSend': {
        const payload = new Uint8Array(amount).fill(1);
        bed.client(
          this.clientSegment({ sequence: clientIsn + 1 + this.clientSent, ack: this.clientAck(), flags: 0, payload }),
        );
        this.clientSent += amount;
        return;
      }
      case 'clientAck':
        bed.client(this.clientSegment({ sequence: clientIsn + 1 + this.clientSent, ack: this.clientAck(), flags: 0 }));
        return;
      case 'pAck':
        receive(p, this.clientSent);
        bed.pvm(this.frameOf(p, p.sent, p.sent));
        return;
      case 'sAck':
        if (this.unapplied !== undefined) return;
        receive(s, this.clientSent);
        this.svmSays(s, s.sent, s.sent);
        return;
      case 'pOpens':
        p.edge += amount * 300;
        bed.pvm(this.frameOf(p, p.sent, p.sent));
        return;
      case 'sOpens':
        if (this.unapplied !== undefined) return;
        s.edge += amount * 300;
        this.svmSays(s, s.sent, s.sent);
        return;
      case 'pTick':
        p.time = advance(p.time, amount);
        return;
      case 'sTick':
        s.time = advance(s.time, amount);
        return;
      case 'pUdp':
        bed.pvm(this.datagram(p.datagrams++));
        return;
      case 'sUdp':
        if (this.unapplied !== undefined) return;
        this.producedDatagrams.add(s.datagrams & 255);
        bed.svm(this.datagram(s.datagrams++));
        return;
      case 'gate':
        this.isOpen = !this.isOpen;
        bed.primary.setGate(this.isOpen, bed.now);
        return;
      case 'pass':
        bed.pass(amount);
        return;
      case 'deliver':
        bed.deliver();
        return;
      default:
        this.checkpointStep(operation);
    }
  }

  clientAck(): number {
    return advance(this.p.isn, 1 + this.seen.stream().length);
  }

  secondarySends(s: Copy, amount: number): void {
    if (this.unapplied !== undefined) return;
    const from = s.sent;
    s.sent = Math.min(streamBytes, from + amount);
    if (s.sent === from) return;
    for (let at = from; at < s.sent; at += 1) this.produced.set(at, this.byteOf(s, at));
    this.svmSays(s, from, s.sent);
  }

  svmSays(s: Copy, from: number, to: number): void {
    this.producedAck = Math.max(this.producedAck, s.received);
    this.producedEdge = Math.max(this.producedEdge, s.edge);
    this.bed.svm(this.frameOf(s, from, to));
  }

  checkpointStep(operation: 'capture' | 'commit' | 'abort' | 'apply'): void {
    const { bed } = this;
    if (operation === 'capture' && this.flight === undefined) {
      this.flight = { ...bed.primary.capture(bed.now), p: { ...this.p, flips: new Set() } };
      bed.secondary.captureMarker(this.flight.epoch);
    } else if (operation === 'abort' && this.flight !== undefined) {
      bed.secondary.abortMarker(this.flight.epoch);
      bed.primary.abort(this.flight.epoch, bed.now);
      this.flight = undefined;
    } else if (operation === 'commit' && this.flight !== undefined && this.unapplied === undefined) this.commit();
    else if (operation === 'apply' && this.unapplied !== undefined) this.apply(this.unapplied);
  }

  /** From here on a survivor runs the checkpoint: what the SVM produced before counts no more. */
  commit(): void {
    const flight = this.flight;
    if (flight === undefined) return;
    this.flight = undefined;
    this.unapplied = flight;
    const { sent, received, datagrams, edge } = flight.p;
    this.covered = { sent, ack: received, datagrams, edge };
    this.produced.clear();
    this.producedDatagrams.clear();
    this.producedAck = 0;
    this.producedEdge = 0;
    this.bed.secondary.suspend();
    this.bed.primary.commit(flight.epoch, this.bed.now);
    this.bed.secondary.released(this.bed.primary.releasedEpoch);
  }

  apply({ epoch, table, held, p }: { epoch: number; table: Uint8Array; held: Uint8Array; p: Copy }): void {
    this.unapplied = undefined;
    this.s = { ...p, flips: new Set() };
    this.bed.apply(epoch, table, held);
  }

  /** The primary node dies: the survivor sends all it has, and the client must not notice. */
  primaryDies(): void {
    if (this.unapplied !== undefined) this.apply(this.unapplied);
    const { table, resend } = this.bed.secondary.takeover(this.bed.now);
    this.isProtected = false;
    const survivor = this.survivor(table);
    for (const frame of resend) this.judge(frame);
    for (const [at, value] of this.seen.bytes)
      assert.equal(value, this.byteOf(this.s, at), `byte ${at} of the survivor`);
    for (let id = 0; id < this.s.datagrams; id += 1) {
      assert.ok(this.datagramsSeen.has(id & 255), `datagram ${id} is lost`);
    }
    const from = Math.min(this.s.sent, this.seen.stream().length);
    survivor.fromGuest(this.frameOf(this.s, from, streamBytes), this.bed.now);
    const whole = Uint8Array.from({ length: streamBytes }, (_, at) => this.byteOf(this.s, at));
    assert.deepEqual(this.seen.stream(), whole);
    survivor.fromNetwork(this.clientSegment({ sequence: clientIsn, ack: this.clientAck(), flags: 0 }), this.bed.now);
  }

  private survivor(table: Uint8Array): PrimaryProxy {
    const ports = {
      toNetwork: (frame: Uint8Array) => this.judge(frame),
      toGuest: (frame: Uint8Array) => {
        const { ack, timestampsAt } = this.view.parse(frame);
        const echo = new DataView(frame.buffer, frame.byteOffset).getUint32(timestampsAt + 4);
        assert.ok(distance(this.s.time, echo) >= 0, 'no echo of a TSval that the survivor never sent');
        assert.equal(distance(ack, advance(this.s.isn, 1)), streamBytes, 'acknowledgements reach the survivor');
      },
      mirror: () => undefined,
      announceIsn: () => undefined,
      confirm: () => undefined,
      wantCheckpoint: () => undefined,
      pauseGuest: () => undefined,
    };
    return new PrimaryProxy(ports, { mode: 'colo', compareTimeoutMs: 200, patienceMs: 200, table, now: this.bed.now });
  }

  /** The secondary node dies, and the arbiter gives the primary the term. */
  secondaryDies(): void {
    this.isProtected = false;
    this.bed.primary.goAlone(this.bed.now);
    this.bed.primary.setGate(true, this.bed.now);
    if (this.p.sent < streamBytes) this.bed.pvm(this.frameOf(this.p, this.p.sent, streamBytes));
    assert.deepEqual(this.seen.stream(), this.stream);
    assert.equal(this.ackSeen, this.p.received);
    for (let id = 0; id < this.p.datagrams; id += 1) assert.ok(this.datagramsSeen.has(id & 255), `datagram ${id}`);
    assert.equal(this.bed.primary.counters.heldBytes, 0);
  }
}

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
      const copy = valid.slice();
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
