// A model of two guests and a client for the property test of the proxy's output rule.
//
// It is independent of the proxy: it knows what the PVM said, what the SVM of this epoch said, and what the last
// committed capture covers, and judges every frame at the moment it leaves.

import assert from 'node:assert/strict';
import { buildTcp, buildUdp, timestampsOption } from '../../packet/build.ts';
import { FrameView } from '../../packet/frame-view.ts';
import { advance, distance } from '../../packet/sequence.ts';
import { tcpFlag } from '../../packet/tcp.ts';
import { PrimaryProxy } from '../primary.ts';
import { assertValid, Bed, type Ends, promptUplink, Reassembly } from './testbed.ts';

export const clientIsn = 5000;

export const operations = [
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
type PrimaryOperation = 'pSend' | 'pAgain' | 'pAck' | 'pOpens' | 'pTick' | 'pUdp';
type SecondaryOperation = 'sSend' | 'sFlip' | 'sAck' | 'sOpens' | 'sTick' | 'sUdp';

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

export class Model {
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
    const { bed } = this;
    switch (operation) {
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
      case 'capture':
      case 'commit':
      case 'abort':
      case 'apply':
        this.checkpointStep(operation);
        return;
      default:
        this.guestStep(operation, amount);
    }
  }

  private guestStep(operation: PrimaryOperation | SecondaryOperation, amount: number): void {
    switch (operation) {
      case 'pSend':
      case 'pAgain':
      case 'pAck':
      case 'pOpens':
      case 'pTick':
      case 'pUdp':
        this.primaryStep(operation, amount);
        return;
      default:
        this.secondaryStep(operation, amount);
    }
  }

  private primaryStep(operation: PrimaryOperation, amount: number): void {
    const { bed, p } = this;
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
      case 'pAck':
        receive(p, this.clientSent);
        bed.pvm(this.frameOf(p, p.sent, p.sent));
        return;
      case 'pOpens':
        p.edge += amount * 300;
        bed.pvm(this.frameOf(p, p.sent, p.sent));
        return;
      case 'pTick':
        p.time = advance(p.time, amount);
        return;
      case 'pUdp':
        bed.pvm(this.datagram(p.datagrams++));
    }
  }

  /** Between a commit and its apply the SVM stands still: only its clock may go on. */
  private secondaryStep(operation: SecondaryOperation, amount: number): void {
    const { bed, s } = this;
    if (operation === 'sTick') s.time = advance(s.time, amount);
    if (operation === 'sTick' || this.unapplied !== undefined) return;
    switch (operation) {
      case 'sSend':
        this.secondarySends(s, amount);
        return;
      case 'sFlip':
        if (amount > 24) s.flips.add(s.sent + (amount % 5));
        return;
      case 'sAck':
        receive(s, this.clientSent);
        this.svmSays(s, s.sent, s.sent);
        return;
      case 'sOpens':
        s.edge += amount * 300;
        this.svmSays(s, s.sent, s.sent);
        return;
      case 'sUdp':
        this.producedDatagrams.add(s.datagrams & 255);
        bed.svm(this.datagram(s.datagrams++));
    }
  }

  clientAck(): number {
    return advance(this.p.isn, 1 + this.seen.stream().length);
  }

  secondarySends(s: Copy, amount: number): void {
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
      ...promptUplink,
      tolerate: () => undefined,
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
    this.bed.primary.setGate(true, this.bed.now);
    this.bed.primary.goAlone(this.bed.now);
    if (this.p.sent < streamBytes) this.bed.pvm(this.frameOf(this.p, this.p.sent, streamBytes));
    assert.deepEqual(this.seen.stream(), this.stream);
    assert.equal(this.ackSeen, this.p.received);
    for (let id = 0; id < this.p.datagrams; id += 1) assert.ok(this.datagramsSeen.has(id & 255), `datagram ${id}`);
    assert.equal(this.bed.primary.counters.heldBytes, 0);
  }
}
