// The guest: a small deterministic machine with pages of RAM, registers, a clock, and a TCP server. What it is depends
// on RAM and registers alone; how it behaves (initial sequence numbers, sizes of segments, when it acknowledges, how
// long it works, which token it draws) also on the copy, by `entropy`, as two copies of a real guest differ.
//
//    page 0, 1     boot ROM: a load of the devices writes them anew
//    page 2 ..     one for each client: version │ client │ count │ token │ token to tell
//    the others    scratch: version │ whatever was written last
//    the disk      sectors; registers know what every one of them must read as
//
// Every write to a page raises its version and the register `total`. So the sum of all versions equals the total,
// unless a page is of another moment than the registers: the guest tells its clients when that is so.

import { crc32 } from 'node:zlib';
import { pageSize } from '../../src/base/page-runs.ts';
import { type Address, buildIcmpEcho, buildUdp } from '../../src/packet/build.ts';
import { FrameView } from '../../src/packet/frame-view.ts';
import { sectorBytes } from '../host/storage.ts';
import type { Random } from '../world/random.ts';
import { Caller, type Calls, noCalls } from './calls.ts';
import { deserialize, serialize } from './plain.ts';
import {
  encodeAnswer,
  encodeDatagram,
  operations,
  type Request,
  readDatagram,
  readEcho,
  readRequest,
  requestHeaderBytes,
} from './protocol.ts';
import { never, TcpStack, type TcpState } from './tcp.ts';
import { announcement, arpFrame, inFragments, onWire, readArp, sourceIp, targetIp, type Wire } from './wire.ts';

export const guestMac = Uint8Array.of(0x52, 0x54, 0, 0x12, 0x34, 0x56);
export const guestIp = 0x0a00020f;
const guestPlace = { mac: guestMac, ip: guestIp };
export const servicePort = 80;
export const datagramPort = 53;
const romPages = 2;
const sessionPages = 16;
const lingerMs = 80;

interface Work {
  dueAt: number;
  request: Request;
  /** The write to the disk that its answer waits for; 0 before it was begun. */
  write?: number | undefined;
}

/** What the guest believes of its disk. */
interface DiskBelief {
  /** One for every sector. */
  sums: Uint32Array;
  underWay: { id: number; first: number; count: number; data: Uint8Array }[];
  nextId: number;
}

export interface GuestDisk {
  sectors: number;
  read(sector: number): Uint8Array;
  write(first: number, data: Buffer, done: () => void): void;
}

/** One connection with what the server keeps of it. */
interface Session {
  tcp: TcpState;
  input: Uint8Array;
  work: Work | undefined;
}

interface Registers {
  total: number;
  sessions: Session[];
  nextChoreAt: number;
  /** The guest has said where it is, as one does that boots. */
  announced: boolean;
  connectionsMade: number;
  /** Where its clock for timestamps began, and how many packets it has sent in fragments. */
  stampBase: number;
  packetId: number;
  disk?: DiskBelief;
  calls?: Calls;
}

/** How a copy differs from another copy: drawn for the whole run. */
export interface GuestTraits {
  ackDelayMs: number;
  workMs: number;
  /** How likely one answer takes much longer than the compare timeout. */
  slow: number;
  choreMs: number;
  wrapping: boolean;
}

export interface GuestPorts {
  emit(frame: Uint8Array, connection: TcpState | undefined): void;
  touch(page: number): void;
  entropy: Random;
  wire: Wire;
  disk?: GuestDisk;
  /** Whom the guest calls itself, and how often. */
  calls?: { clients: readonly Address[]; everyMs: number };
}

export class Guest {
  private readonly ram: Buffer;
  private readonly view: DataView;
  private readonly ports: GuestPorts;
  private readonly traits: GuestTraits;
  private readonly stack: TcpStack;
  private readonly caller: Caller | undefined;
  private readonly frameView = new FrameView();
  private registers: Registers = noRegisters();
  private now = 0;

  constructor(ram: Buffer, traits: GuestTraits, ports: GuestPorts) {
    this.ram = ram;
    this.view = new DataView(ram.buffer, ram.byteOffset, ram.length);
    this.ports = ports;
    this.traits = traits;
    const { entropy } = ports;
    this.stack = new TcpStack(guestPlace, ports.wire, {
      emit: (frame, state) => ports.emit(frame, state),
      segmentBytes: () => (entropy.chance(0.3) ? 100 + entropy.below(1360) : 1460),
      ackDelayMs: () => (entropy.chance(0.4) ? 0 : entropy.next() * traits.ackDelayMs),
      windowBytes: () => 8192 + 4 * entropy.below(6000),
      stamp: () => (ports.wire.stamps ? (this.registers.stampBase + Math.floor(this.now)) >>> 0 : undefined),
      mss: () => (entropy.chance(ports.wire.fickle) ? 1400 : 1460),
      ecn: () => ports.wire.ecn && !entropy.chance(ports.wire.fickle),
      opened: (state) => {
        const { calls } = this.registers;
        if (calls?.tcp === state) this.caller?.opened(calls, this.now);
      },
      data: (state, bytes) => {
        const { calls } = this.registers;
        if (calls?.tcp === state) this.caller?.data(calls, bytes, this.now);
        else this.take(state, bytes);
      },
      ended: (state) => this.stack.finish(state, this.now),
      reset: (state) => {
        if (this.registers.calls?.tcp === state) this.registers.calls.broken = true;
      },
    });
    if (ports.calls !== undefined)
      this.caller = new Caller(this.stack, ports.calls, (tcp) =>
        this.registers.sessions.push({ tcp, input: none, work: undefined }),
      );
  }

  /** The guest's connections, for the checkers: a copy that changes under no one. */
  get connections(): readonly TcpState[] {
    const { sessions, calls } = this.registers;
    return [...sessions.map((session) => session.tcp), ...(calls?.tcp === undefined ? [] : [calls.tcp])];
  }

  boot(): void {
    this.writeRom();
    this.registers = noRegisters();
    if (this.ports.wire.stamps) this.registers.stampBase = this.ports.entropy.u32();
    if (this.caller !== undefined) this.registers.calls = noCalls();
    const { disk } = this.ports;
    if (disk === undefined) return;
    const sums = Uint32Array.from({ length: disk.sectors }, (_, sector) => crc32(disk.read(sector)));
    this.registers.disk = { sums, underWay: [], nextId: 1 };
  }

  /** What a reset of the machine writes to RAM. */
  writeRom(): void {
    for (let page = 0; page < romPages; page += 1) {
      this.ram.fill(0xf0 + page, page * pageSize + 8, (page + 1) * pageSize);
      this.ports.touch(page);
    }
  }

  save(): Uint8Array {
    return serialize(this.registers);
  }

  restore(state: Uint8Array): void {
    this.registers = deserialize(state) as Registers;
  }

  /** When something is to be done next, in the guest's time. */
  deadline(): number {
    let next = this.registers.nextChoreAt;
    for (const { tcp, work } of this.registers.sessions) {
      next = Math.min(next, this.stack.deadline(tcp), work?.dueAt ?? never, tcp.endedAt + lingerMs);
    }
    const { calls } = this.registers;
    return calls === undefined ? next : Math.min(next, this.caller?.deadline(calls) ?? never);
  }

  tick(now: number): void {
    this.now = now;
    if (!this.registers.announced) this.ports.emit(announcement(guestPlace, this.ports.wire), undefined);
    this.registers.announced = true;
    if (now >= this.registers.nextChoreAt) this.chore();
    for (const session of this.registers.sessions) {
      this.stack.tick(session.tcp, now);
      this.work(session);
    }
    const { sessions, calls } = this.registers;
    if (calls !== undefined) this.caller?.tick(calls, now, () => this.isn());
    this.registers.sessions = sessions.filter(({ tcp }) => now < tcp.endedAt + lingerMs);
  }

  frame(frame: Uint8Array, now: number): void {
    this.now = now;
    const view = this.frameView.parse(frame);
    const arp = readArp(view);
    if (arp?.isRequest === true && arp.target === guestIp && arp.sender.ip !== guestIp)
      this.ports.emit(arpFrame(guestPlace, arp.sender, this.ports.wire), undefined);
    if (arp !== undefined || view.kind === 'other' || targetIp(view) !== guestIp) return;
    if (view.kind === 'icmp') this.answerPing(view);
    if (view.kind === 'udp' && view.targetPort === datagramPort) this.answerDatagram(view);
    if (view.kind === 'tcp') this.segment(view);
  }

  private segment(view: FrameView): void {
    const { sessions, calls } = this.registers;
    if (calls !== undefined && this.caller?.input(calls, view, this.now) === true) return;
    const known = sessions.find(
      ({ tcp }) =>
        tcp.localPort === view.targetPort &&
        tcp.remote.port === view.sourcePort &&
        tcp.remote.ip === sourceIp(view) &&
        tcp.phase !== 'dead',
    );
    const isAnew = view.isSyn && !view.hasAck && (known === undefined || this.stack.isDone(known.tcp));
    if (isAnew) {
      if (known !== undefined) sessions.splice(sessions.indexOf(known), 1);
      sessions.push({
        tcp: this.stack.accept(remoteOf(view), view, this.isn(), this.now),
        input: none,
        work: undefined,
      });
    } else if (known !== undefined) this.stack.input(known.tcp, view, this.now);
    else if (!view.isReset) this.stack.emitReset(remoteOf(view), view.targetPort, view.hasAck ? view.ack : 0);
  }

  /** It comes from the copy's own clock, as Linux takes it; some begin just before the numbers wrap. */
  private isn(): number {
    const { entropy } = this.ports;
    if (!this.traits.wrapping) return entropy.u32();
    this.registers.connectionsMade += 1;
    return (0xffffffff - 30_000 + this.registers.connectionsMade * 1000 + entropy.below(1000)) >>> 0;
  }

  private take(state: TcpState, bytes: Uint8Array): void {
    const session = this.registers.sessions.find(({ tcp }) => tcp === state);
    if (session === undefined) return;
    session.input = Buffer.concat([session.input, bytes]);
    this.begin(session);
  }

  private begin(session: Session): void {
    if (session.work !== undefined) return;
    const request = readRequest(session.input);
    if (request === undefined) return;
    session.input = Uint8Array.from(session.input.subarray(requestHeaderBytes + request.bodyBytes));
    const { entropy } = this.ports;
    const isSlow = entropy.chance(this.traits.slow);
    const stores = this.ports.disk !== undefined && request.operation !== operations.read;
    const dueAt = this.now + entropy.next() * (isSlow ? 400 : this.traits.workMs);
    session.work = { request, dueAt, ...(stores ? { write: 0 } : {}) };
  }

  private work(session: Session): void {
    const { work } = session;
    if (work === undefined || this.now < work.dueAt) return;
    if (work.write === 0) {
      // An answer is given when what it promises is on the disk.
      const id = this.store(work.request.client * 5 + work.request.number);
      work.dueAt = id === undefined ? this.now + 1 : never;
      work.write = id ?? 0;
      return;
    }
    session.work = undefined;
    const answer = this.answer(work.request);
    // One write or two: the copies cut the stream differently.
    const cut = this.ports.entropy.chance(0.3) ? this.ports.entropy.below(answer.length) : 0;
    if (cut > 0) this.stack.send(session.tcp, answer.subarray(0, cut), this.now);
    this.stack.send(session.tcp, answer.subarray(cut), this.now);
    this.begin(session);
  }

  private answer(request: Request): Uint8Array {
    const { client, number, operation } = request;
    const page = romPages + (client % sessionPages);
    const at = page * pageSize;
    if (this.view.getUint32(at + 4) !== client) {
      this.view.setUint32(at + 4, client);
      for (const field of [8, 12, 16]) this.view.setUint32(at + field, 0);
    }
    const count = this.view.getUint32(at + 8) + 1;
    const tokenBefore = this.view.getUint32(at + 16);
    let told = tokenBefore;
    let token = tokenBefore;
    if (operation === operations.draw) told = token = this.ports.entropy.u32();
    if (operation === operations.hide) token = this.ports.entropy.u32();
    this.view.setUint32(at + 8, count);
    this.view.setUint32(at + 12, told);
    this.view.setUint32(at + 16, token);
    this.raise(page);
    this.scratch(number + client, number);
    const memory = this.trouble();
    const bodyBytes = operation === operations.read ? 500 + ((client * 977 + number * 331) % 7000) : 20;
    const second = Math.floor(this.now / 1000);
    return encodeAnswer({
      ...{ client, number, operation, memory, bodyBytes, count },
      ...{ tokenBefore, token: told, second, sum: request.sum },
    });
  }

  private chore(): void {
    const { entropy } = this.ports;
    this.scratch(entropy.below(1000), entropy.u32());
    if (this.ports.disk !== undefined && entropy.chance(0.3)) this.store(entropy.below(1000));
    this.registers.nextChoreAt = this.now + this.traits.choreMs * (0.5 + entropy.next());
  }

  private scratch(which: number, value: number): void {
    // The pages of the boot ROM are ordinary RAM once the guest runs.
    const index = which % (this.ram.length / pageSize - sessionPages);
    const page = index < romPages ? index : index + sessionPages;
    this.view.setUint32(page * pageSize + 4 + 4 * (value % 1000), value);
    this.raise(page);
  }

  private raise(page: number): void {
    this.view.setUint32(page * pageSize, this.view.getUint32(page * pageSize) + 1);
    this.registers.total += 1;
    this.ports.touch(page);
  }

  /** What the guest finds wrong with itself: protocol.ts. */
  private trouble(): number {
    if (!this.isConsistent()) return 1;
    if (!this.diskAgrees()) return 2;
    return this.registers.calls?.broken === true ? 3 : 0;
  }

  /** Whether the disk reads as the guest has written it; what is under way may read as anything. */
  diskAgrees(): boolean {
    const { disk } = this.ports;
    const belief = this.registers.disk;
    if (disk === undefined || belief === undefined) return true;
    const isUnderWay = (sector: number) =>
      belief.underWay.some(({ first, count }) => sector >= first && sector < first + count);
    return belief.sums.every((sum, sector) => isUnderWay(sector) || crc32(disk.read(sector)) === sum);
  }

  /** Begins a write somewhere near `where`; undefined when another one is under way there. */
  private store(where: number): number | undefined {
    const { disk, entropy } = this.ports;
    const belief = this.registers.disk;
    if (disk === undefined || belief === undefined) return undefined;
    const count = 1 + entropy.below(3);
    const first = where % (disk.sectors - count);
    if (belief.underWay.some((one) => first < one.first + one.count && one.first < first + count)) return undefined;
    const data = Buffer.alloc(count * sectorBytes);
    const isZero = entropy.chance(0.1);
    for (let sector = 0; sector < count; sector += 1) {
      const at = sector * sectorBytes;
      if (!isZero) data.fill(entropy.u32() % 255, at, at + sectorBytes).writeUInt32BE(entropy.u32(), at);
      belief.sums[first + sector] = crc32(data.subarray(at, at + sectorBytes));
    }
    const id = belief.nextId;
    belief.nextId += 1;
    belief.underWay.push({ id, first, count, data });
    disk.write(first, data, () => this.stored(id));
    return id;
  }

  /** What was under way when the machine was saved is begun again by the one that was loaded with it. */
  restartWrites(): void {
    for (const { id, first, data } of this.registers.disk?.underWay ?? [])
      this.ports.disk?.write(first, Buffer.from(data), () => this.stored(id));
  }

  /** The disk has it, whether the machine runs at this moment or not. */
  private stored(id: number): void {
    const belief = this.registers.disk;
    if (belief === undefined) return;
    belief.underWay = belief.underWay.filter((one) => one.id !== id);
    for (const { work } of this.registers.sessions) if (work?.write === id) work.dueAt = 0;
  }

  private isConsistent(): boolean {
    let sum = 0;
    for (let at = 0; at < this.ram.length; at += pageSize) sum += this.view.getUint32(at);
    return sum === this.registers.total;
  }

  private answerDatagram(view: FrameView): void {
    const question = readDatagram(view.frame.subarray(view.contentFrom, view.contentTo));
    if (question === undefined || question.kind !== 1) return;
    const { wire, entropy } = this.ports;
    const from = onWire({ ...guestPlace, port: view.targetPort }, wire);
    const frame = buildUdp(from, onWire(remoteOf(view), wire), encodeDatagram(question.client, question.number, 2));
    if (!wire.fragmented || question.number % 2 === 0) return this.ports.emit(frame, undefined);
    // Each copy counts its packets for itself.
    this.registers.packetId = (this.registers.packetId + 1 + entropy.below(3)) & 0xffff;
    for (const piece of inFragments(frame, this.registers.packetId)) this.ports.emit(piece, undefined);
  }

  private answerPing({ frame, transportAt }: FrameView): void {
    const { wire } = this.ports;
    const echo = readEcho(frame, transportAt);
    if (echo === undefined || echo.reply) return;
    const to = remoteOf(this.frameView);
    const answer = buildIcmpEcho(onWire({ ...guestPlace, port: 0 }, wire), onWire(to, wire), { ...echo, reply: true });
    this.ports.emit(answer, undefined);
  }
}

const noRegisters = (): Registers => ({
  ...{ total: 0, sessions: [], nextChoreAt: 0, announced: false, connectionsMade: 0, stampBase: 0, packetId: 0 },
});
const none = new Uint8Array(0);

function remoteOf(view: FrameView): { mac: Uint8Array; ip: number; port: number } {
  return { mac: Uint8Array.from(view.frame.subarray(6, 12)), ip: sourceIp(view), port: view.sourcePort };
}
