// A client: asks the guest one request after another over TCP connections, and a question by datagram now and then. It
// keeps the history of what it saw and checks every byte of it:
//
//   - a byte of a stream never changes, whoever sends it again;
//   - a connection is never reset;
//   - every answer is the one answer to its request: count and token go on from what this client was told before.

import { type Address, buildIcmpEcho, buildUdp } from '../../src/packet/build.ts';
import { FrameView } from '../../src/packet/frame-view.ts';
import { distance } from '../../src/packet/sequence.ts';
import { encodeReceipt, readReport, reportBytes, reportPort } from '../guest/calls.ts';
import { datagramPort, guestIp, guestMac, servicePort } from '../guest/guest.ts';
import {
  type Answer,
  answerHeaderBytes,
  encodeDatagram,
  encodeRequest,
  fillBody,
  type Operation,
  operations,
  readAnswer,
  readDatagram,
  readEcho,
  sumOf,
} from '../guest/protocol.ts';
import { never, TcpStack, type TcpState } from '../guest/tcp.ts';
import { Assembler, arpFrame, onWire, readArp, targetIp, type Wire } from '../guest/wire.ts';
import type { Random } from '../world/random.ts';
import type { Due, Schedule } from '../world/schedule.ts';

export interface ClientTraits {
  thinkMs: number;
  /** How likely the copies answer one request differently. */
  diverge: number;
  long: number;
  datagrams: number;
  /** Requests on one connection. */
  requests: number;
  /** How likely the next connection has the same port. */
  reuse: number;
  pipeline: boolean;
}

const udpHeaderBytes = 8;
const troubles = ['its memory inconsistent', 'another disk than it wrote', 'a connection of its own cut off'];

interface Asked {
  number: number;
  operation: number;
  sum: number;
  /** The guest forgot everything before this request: its answer tells where to go on from. */
}

export class Client {
  readonly id: number;
  answered = 0;
  answeredAt = 0;
  /** When the request that waits was sent; `never` while none does. */
  waitingSince = never;
  private readonly schedule: Schedule;
  private readonly random: Random;
  private readonly traits: ClientTraits;
  private readonly wire: Wire;
  private readonly assembler = new Assembler();
  private pings = 0;
  private readonly send: (frame: Uint8Array) => void;
  private readonly complain: (what: string) => void;
  private readonly local: { mac: Uint8Array; ip: number };
  private readonly stack: TcpStack;
  private readonly view = new FrameView();
  private readonly old: TcpState[] = [];
  private tcp: TcpState | undefined;
  private port: number;
  private number = 0;
  private left = 0;
  private asked: Asked[] = [];
  private input: Uint8Array = new Uint8Array(0);
  /** Every byte of this connection that was accepted, from position 1 on. */
  private history: Uint8Array = new Uint8Array(0);
  private count: number | undefined = undefined;
  private token: number | undefined = undefined;
  /** Calls of the guest. */
  private called: { tcp: TcpState; input: Uint8Array }[] = [];
  private newestReport = 0;
  private wakeUp: Due | undefined;
  private stopped = false;
  private datagram = 0;

  constructor(options: {
    id: number;
    schedule: Schedule;
    random: Random;
    traits: ClientTraits;
    wire: Wire;
    send: (frame: Uint8Array) => void;
    complain: (what: string) => void;
  }) {
    this.id = options.id;
    this.schedule = options.schedule;
    this.random = options.random;
    this.traits = options.traits;
    this.wire = options.wire;
    this.send = options.send;
    this.complain = options.complain;
    this.local = { mac: Uint8Array.of(2, 0, 0, 0, 1, this.id), ip: 0x0a000260 + this.id };
    this.port = 20_000 + 1000 * this.id;
    this.stack = new TcpStack(this.local, this.wire, {
      emit: (frame) => this.send(frame),
      segmentBytes: () => 1460,
      ackDelayMs: () => (this.random.chance(0.5) ? 0 : 10 * this.random.next()),
      windowBytes: () => 65_535,
      stamp: () => (this.wire.stamps ? Math.floor(this.schedule.now) + 0xffffff00 + 100 * this.id : undefined),
      mss: () => 1460,
      ecn: () => this.wire.ecn,
      opened: (state) => {
        if (state === this.tcp) this.askMany();
      },
      data: (state, bytes) => this.take(state, bytes),
      ended: (state) => this.stack.finish(state, this.schedule.now),
      reset: (state, halfOpen) => {
        // A SYN that was late on its way is answered, and taken back: nothing was said yet (RFC 9293, 3.5).
        if (halfOpen) return;
        // A call that was reported is the guest's own business: it may have forgotten it.
        const call = this.called.find(({ tcp }) => tcp === state);
        if (state !== this.tcp && (call === undefined || call.input.length === reportBytes)) return;
        this.complain(`client ${this.id}: its connection was reset`);
      },
    });
  }

  get place(): Address {
    return { ...this.local, port: reportPort };
  }

  get address(): number {
    return this.local.ip;
  }

  begin(delayMs: number): void {
    this.schedule.after(delayMs, () => this.connect());
    if (this.traits.datagrams > 0) this.schedule.after(delayMs + 5, () => this.askByDatagram());
    if (this.wire.pings > 0) this.schedule.after(delayMs + 7, () => this.ping());
    if (this.wire.lookups > 0) this.schedule.after(delayMs + 9, () => this.lookUp());
  }

  stop(): void {
    this.stopped = true;
  }

  /** The guest was booted anew: what it knew is gone, and nobody promised otherwise. */
  forget(): void {
    this.tcp = undefined;
    this.old.length = 0;
    this.called = [];
    this.newestReport = 0;
    this.asked = [];
    this.count = undefined;
    this.token = undefined;
    this.waitingSince = never;
    this.port += 1;
    this.schedule.after(50, () => this.tcp === undefined && this.connect());
  }

  frame(frame: Uint8Array): void {
    const view = this.view.parse(frame);
    const arp = readArp(view);
    if (arp !== undefined) return this.takeArp(arp, view);
    if (view.kind === 'other' || targetIp(view) !== this.local.ip) return;
    if (view.kind === 'udp') this.takeDatagram(view.frame.subarray(view.contentFrom, view.contentTo));
    if (view.kind === 'fragment') this.takeFragment(view);
    if (view.kind === 'icmp') this.takeEcho(view);
    if (view.kind !== 'tcp') return;
    const { tcp } = this;
    if (view.targetPort === reportPort) this.takeCall(view);
    else if (tcp !== undefined && tcp.localPort === view.targetPort) {
      this.checkHistory(tcp, view);
      this.stack.input(tcp, view, this.schedule.now);
    } else {
      const state = this.old.find((one) => one.localPort === view.targetPort);
      if (state !== undefined) this.stack.input(state, view, this.schedule.now);
    }
    this.arm();
  }

  /** A segment of a connection that the guest has opened. */
  private takeCall(view: FrameView): void {
    const { now } = this.schedule;
    const known = this.called.find(({ tcp }) => tcp.remote.port === view.sourcePort);
    if (view.isSyn && !view.hasAck && (known === undefined || this.stack.isDone(known.tcp))) {
      const remote = { mac: guestMac, ip: guestIp, port: view.sourcePort };
      const tcp = this.stack.accept(remote, view, this.random.u32(), now);
      this.called = [...this.called.filter((one) => one !== known).slice(-8), { tcp, input: new Uint8Array(0) }];
    } else if (known !== undefined) this.stack.input(known.tcp, view, now);
  }

  private takeReport(call: { tcp: TcpState; input: Uint8Array }, bytes: Uint8Array): void {
    call.input = Buffer.concat([call.input, bytes]);
    if (call.input.length < reportBytes) return;
    const report = readReport(call.input);
    const isRight = report !== undefined && report.number > this.newestReport && call.input.length === reportBytes;
    if (!isRight)
      this.complain(`client ${this.id}: the guest called with ${report?.number} after ${this.newestReport}`);
    this.newestReport = report?.number ?? 0;
    this.stack.send(call.tcp, encodeReceipt(this.newestReport), this.schedule.now);
  }

  private checkHistory(tcp: TcpState, view: FrameView): void {
    if (view.isSyn || tcp.phase !== 'open' || view.payloadBytes === 0 || !this.stack.isOurs(tcp, view)) return;
    const at = tcp.rcv + distance(view.sequence, (tcp.irs + tcp.rcv) >>> 0);
    for (let index = 0; index < view.payloadBytes; index += 1) {
      const position = at + index;
      if (position < 1 || position > this.history.length) continue;
      if (this.history[position - 1] === view.frame[view.payloadAt + index]) continue;
      this.complain(`client ${this.id}: byte ${position} of its stream was another one before`);
      return;
    }
  }

  private connect(): void {
    if (this.stopped) return;
    if (this.tcp !== undefined) {
      this.old.push(this.tcp);
      if (this.old.length > 4) this.old.shift();
      if (!this.random.chance(this.traits.reuse)) this.port += 1;
      const again = this.old.findIndex((one) => one.localPort === this.port);
      if (again >= 0) this.old.splice(again, 1);
    }
    this.left = 1 + this.random.below(this.traits.requests);
    this.input = new Uint8Array(0);
    this.history = new Uint8Array(0);
    const remote: Address = { mac: guestMac, ip: guestIp, port: servicePort };
    this.waitingSince = this.schedule.now;
    this.tcp = this.stack.connect(remote, this.port, this.random.u32(), this.schedule.now);
    this.arm();
  }

  private askMany(): void {
    const count = this.traits.pipeline && this.random.chance(0.3) ? 2 : 1;
    for (let index = 0; index < count; index += 1) this.ask();
  }

  private ask(): void {
    const { tcp, random, traits } = this;
    if (tcp === undefined || this.left === 0) return;
    this.left -= 1;
    this.number += 1;
    const operation = this.operation();
    const bodyBytes = operation === operations.write ? 200 + random.below(6000) : 4 + random.below(60);
    const body = new Uint8Array(bodyBytes);
    fillBody(body, this.id, this.number);
    this.asked.push({ number: this.number, operation, sum: sumOf(body) });
    if (traits.thinkMs > 0 && this.waitingSince === never) this.waitingSince = this.schedule.now;
    this.stack.send(
      tcp,
      encodeRequest({ client: this.id, number: this.number, operation, bodyBytes }),
      this.schedule.now,
    );
    this.arm();
  }

  private operation(): Operation {
    const { random, traits } = this;
    if (random.chance(traits.diverge)) return random.chance(0.5) ? operations.draw : operations.hide;
    if (random.chance(traits.long)) return random.chance(0.6) ? operations.read : operations.write;
    return operations.add;
  }

  private take(state: TcpState, bytes: Uint8Array): void {
    const call = this.called.find(({ tcp }) => tcp === state);
    if (call !== undefined) this.takeReport(call, bytes);
    if (state !== this.tcp) return;
    this.history = Buffer.concat([this.history, bytes]);
    this.input = Buffer.concat([this.input, bytes]);
    for (let answer = readAnswer(this.input); answer !== undefined; answer = readAnswer(this.input)) {
      this.check(answer, this.input.subarray(answerHeaderBytes, answerHeaderBytes + answer.bodyBytes));
      this.input = this.input.subarray(answerHeaderBytes + answer.bodyBytes);
      this.goOn();
    }
  }

  private check(answer: Answer, body: Uint8Array): void {
    const asked = this.asked.shift();
    const where = `client ${this.id}, answer ${answer.number}`;
    const expected = new Uint8Array(body.length);
    fillBody(expected, this.id, answer.number);
    if (asked === undefined || answer.client !== this.id || answer.number !== asked.number)
      this.complain(`${where}: it was not due; ${asked?.number ?? 'none'} was`);
    else if (answer.memory !== 0)
      this.complain(`${where}: the guest found ${troubles[answer.memory - 1] ?? 'trouble'}`);
    else if (answer.sum !== asked.sum) this.complain(`${where}: the guest received another request`);
    else if (!Buffer.from(expected).equals(body)) this.complain(`${where}: its body is wrong`);
    else if (this.count !== undefined && answer.count !== this.count + 1)
      this.complain(`${where}: it is number ${answer.count} for the guest, and ${this.count + 1} was due`);
    else if (this.token !== undefined && answer.tokenBefore !== this.token)
      this.complain(`${where}: the guest forgot the token that it told before`);
    this.count = answer.count;
    this.token = answer.operation === operations.hide ? undefined : answer.token;
    this.answered += 1;
    this.answeredAt = this.schedule.now;
  }

  private goOn(): void {
    const { tcp } = this;
    if (this.asked.length > 0) {
      this.waitingSince = this.schedule.now;
      return;
    }
    this.waitingSince = never;
    const thinkMs = this.traits.thinkMs * 2 * this.random.next();
    this.schedule.after(thinkMs, () => {
      if (tcp !== this.tcp || tcp === undefined) return;
      if (this.left > 0) {
        this.askMany();
        return;
      }
      this.stack.finish(tcp, this.schedule.now);
      this.arm();
      this.schedule.after(5 + 10 * this.random.next(), () => tcp === this.tcp && this.connectWhenDone(tcp));
    });
  }

  private connectWhenDone(tcp: TcpState): void {
    if (tcp !== this.tcp) return;
    if (this.stack.isDone(tcp)) this.connect();
    else this.schedule.after(10, () => this.connectWhenDone(tcp));
  }

  private askByDatagram(): void {
    if (this.stopped) return;
    this.datagram += 1;
    const to = { mac: guestMac, ip: guestIp, port: datagramPort };
    const from = onWire({ ...this.local, port: 5353 }, this.wire);
    this.send(buildUdp(from, onWire(to, this.wire), encodeDatagram(this.id, this.datagram, 1)));
    this.schedule.after((1000 / this.traits.datagrams) * (0.5 + this.random.next()), () => this.askByDatagram());
  }

  private ping(): void {
    if (this.stopped) return;
    this.pings += 1;
    const from = onWire({ ...this.local, port: 0 }, this.wire);
    const to = onWire({ mac: guestMac, ip: guestIp, port: 0 }, this.wire);
    this.send(buildIcmpEcho(from, to, { reply: false, id: this.id, sequence: this.pings }));
    this.schedule.after((1000 / this.wire.pings) * (0.5 + this.random.next()), () => this.ping());
  }

  private takeEcho({ frame, transportAt }: FrameView): void {
    const echo = readEcho(frame, transportAt);
    const isRight = echo?.reply === true && echo.id === this.id && echo.sequence <= this.pings;
    if (!isRight) this.complain(`client ${this.id}: an echo that it never asked for`);
  }

  /** Who has the guest's address: its answer is the only right one, whoever gives it. */
  private lookUp(): void {
    if (this.stopped) return;
    this.send(arpFrame(this.local, { ip: guestIp }, this.wire));
    this.schedule.after((1000 / this.wire.lookups) * (0.5 + this.random.next()), () => this.lookUp());
  }

  private takeArp({ sender }: { sender: { mac: Uint8Array; ip: number } }, { frame }: FrameView): void {
    const isGuest = sender.ip === guestIp && Buffer.from(sender.mac).equals(guestMac);
    if (isGuest && Buffer.from(frame.subarray(6, 12)).equals(guestMac)) return;
    this.complain(`client ${this.id}: somebody else has an address that it asked for`);
  }

  private takeFragment(view: FrameView): void {
    const packet = this.assembler.push(view);
    if (packet !== undefined) this.takeDatagram(packet.subarray(udpHeaderBytes));
  }

  private takeDatagram(content: Uint8Array): void {
    const answer = readDatagram(content);
    const isRight = answer !== undefined && answer.client === this.id && answer.kind === 2;
    if (!isRight || answer.number > this.datagram)
      this.complain(`client ${this.id}: a datagram that nobody could send`);
  }

  private get others(): TcpState[] {
    return [...this.old, ...this.called.map(({ tcp }) => tcp)];
  }

  private arm(): void {
    if (this.wakeUp !== undefined) this.wakeUp.action = undefined;
    let at = this.tcp === undefined ? never : this.stack.deadline(this.tcp);
    for (const state of this.others) at = Math.min(at, this.stack.deadline(state));
    if (at === never) return;
    this.wakeUp = this.schedule.at(at, () => {
      for (const state of this.others) this.stack.tick(state, this.schedule.now);
      if (this.tcp !== undefined) this.stack.tick(this.tcp, this.schedule.now);
      this.arm();
    });
  }
}
