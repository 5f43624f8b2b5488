// The TCP connections that a node knows (connection.ts), which travel with every checkpoint (connection-records.ts),
// and when each is forgotten. How long one is remembered depends on what it is in, and counts from its last frame
// (limits.ts):
//
//    opening ──► open ──► closing ──► ended ──► forgotten
//       └── forgotten when the guest has long given it up
//
// An open one stays: an idle session must survive a failover too. When the table is full the oldest of those that have
// ended makes room, then of those that are opening, whatever their offset: nothing is lost of a call that its client
// has never answered but that call. So a flood of calls takes the place of other calls, and never that of a session.

import { Fifo } from '../../base/fifo.ts';
import { read32, write32 } from '../../packet/checksum.ts';
import { FlowKey, family, packFlowKey, unpackFlowKey } from '../../packet/flow-key.ts';
import type { FrameView } from '../../packet/frame-view.ts';
import { ipProtocol } from '../../packet/ipv4.ts';
import { distance } from '../../packet/sequence.ts';
import { synOptions, tcpFlag } from '../../packet/tcp.ts';
import { proxyLimits } from '../limits.ts';
import { answers, Connection, flag, hasClientReset, isInWindow, noteGuestAck, phaseOf } from './connection.ts';
import { record, Section, tableHeaderBytes, tableMagic } from './connection-records.ts';
import { FlowMap } from './flow-map.ts';

/** Which phases have an end; the bit says that a connection stands in that queue. */
const ageing = {
  opening: { bit: 1, ms: proxyLimits.openingMs },
  closing: { bit: 2, ms: proxyLimits.closingMs },
  ended: { bit: 4, ms: proxyLimits.lingerMs },
} as const;

type Ageing = keyof typeof ageing;

export class ConnectionTable<Attachment> {
  private readonly map = new FlowMap<Connection<Attachment>>();
  private readonly ipv4 = new Section<Attachment>(false);
  private readonly ipv6 = new Section<Attachment>(true);
  private readonly queues = {
    opening: new Fifo<Connection<Attachment>>(),
    closing: new Fifo<Connection<Attachment>>(),
    ended: new Fifo<Connection<Attachment>>(),
  };
  private readonly reversed = new FlowKey();
  private evictAt = 0;
  /** Connections forgotten, or not remembered, because the table was full. */
  evicted = 0;
  private readonly onForget: (connection: Connection<Attachment>) => void;
  private readonly isBusy: (connection: Connection<Attachment>) => boolean;
  private readonly connectionsMax: number;

  /** `onForget` is called before a connection leaves the table, so that its attachment can be given up. One that is
   *  busy is never forgotten to make room. */
  constructor(
    onForget: (connection: Connection<Attachment>) => void,
    isBusy: (connection: Connection<Attachment>) => boolean,
    connectionsMax: number = proxyLimits.connectionsMax,
  ) {
    this.onForget = onForget;
    this.isBusy = isBusy;
    this.connectionsMax = connectionsMax;
  }

  get size(): number {
    return this.map.size;
  }

  find(key: FlowKey): Connection<Attachment> | undefined {
    return this.map.get(key);
  }

  /** The connection of a TCP frame of the guest. */
  ofGuestFrame(view: FrameView): Connection<Attachment> | undefined {
    return this.map.get(view.key);
  }

  /** The connection of a TCP frame to the guest. */
  ofClientFrame(view: FrameView): Connection<Attachment> | undefined {
    return this.map.get(this.reversed.reverse(view.key));
  }

  /** Adds an unknown connection; undefined when the table is full of connections that must stay. */
  add(key: FlowKey, now: number): Connection<Attachment> | undefined {
    if (this.isFull && !this.evictOne()) return undefined;
    const connection = new Connection<Attachment>(key);
    connection.lastSeen = now;
    this.sectionOf(connection).add(connection);
    this.map.add(connection);
    this.store(connection);
    this.age(connection, now);
    return connection;
  }

  forget(connection: Connection<Attachment>): void {
    if (connection.slot < 0) return;
    this.onForget(connection);
    this.map.delete(connection);
    const moved = this.sectionOf(connection).remove(connection);
    if (moved !== undefined) this.store(moved);
    connection.slot = -1;
  }

  private sectionOf(connection: Connection<Attachment>): Section<Attachment> {
    return connection.key.family === family.ipv6 ? this.ipv6 : this.ipv4;
  }

  private get isFull(): boolean {
    const bytes = tableHeaderBytes + this.ipv4.bytes + this.ipv6.bytes + this.ipv6.recordBytes;
    return this.map.size >= this.connectionsMax || bytes > proxyLimits.tableBytesMax;
  }

  /** A new connection on the same 5-tuple begins: everything learned of the old one is void. */
  restart(connection: Connection<Attachment>, now: number): void {
    connection.delta = 0;
    connection.timeDelta = 0;
    connection.clientIsn = undefined;
    connection.guestIsn = undefined;
    connection.guestTime = undefined;
    connection.flags = 0;
    connection.windowShift = 0;
    connection.hasGuestAck = false;
    this.store(connection);
    connection.lastSeen = now;
    this.age(connection, now);
  }

  /** Writes the travelling part of `connection` into its record. Call it after changing any of it. */
  store(connection: Connection<Attachment>): void {
    if (connection.slot < 0) return;
    const section = this.sectionOf(connection);
    const bytes = section.records;
    const keyAt = connection.slot * section.recordBytes;
    const at = keyAt + section.keyBytes;
    let flags = connection.flags & ~flag.clientIsn;
    if (connection.clientIsn !== undefined) flags |= flag.clientIsn;
    packFlowKey(connection.key, bytes, keyAt);
    write32(bytes, at + record.delta, connection.delta);
    write32(bytes, at + record.clientIsn, connection.clientIsn ?? 0);
    write32(bytes, at + record.timeDelta, connection.timeDelta);
    bytes[at + record.flags] = flags;
    bytes[at + record.windowShift] = connection.windowShift;
  }

  /** A copy of all records, as it travels. */
  encode(): Uint8Array {
    const { ipv4, ipv6 } = this;
    const table = new Uint8Array(tableHeaderBytes + ipv4.bytes + ipv6.bytes);
    write32(table, 0, tableMagic);
    write32(table, 4, ipv4.bySlot.length);
    write32(table, 8, ipv6.bySlot.length);
    table.set(ipv4.records.subarray(0, ipv4.bytes), tableHeaderBytes);
    table.set(ipv6.records.subarray(0, ipv6.bytes), tableHeaderBytes + ipv4.bytes);
    return table;
  }

  /** Whether `adopt` will take it. No bytes at all are an empty table. */
  isTable(table: Uint8Array): boolean {
    if (table.length < tableHeaderBytes || read32(table, 0) !== tableMagic) return table.length === 0;
    const ipv4Bytes = read32(table, 4) * this.ipv4.recordBytes;
    return table.length === tableHeaderBytes + ipv4Bytes + read32(table, 8) * this.ipv6.recordBytes;
  }

  /** Replaces everything by an encoded table. False when the bytes are not one: the table is then empty. */
  adopt(table: Uint8Array, now: number): boolean {
    this.clear();
    if (!this.isTable(table)) return false;
    if (table.length === 0) return true;
    const ipv4Bytes = read32(table, 4) * this.ipv4.recordBytes;
    this.adoptSection(this.ipv4, table.subarray(tableHeaderBytes, tableHeaderBytes + ipv4Bytes), now);
    this.adoptSection(this.ipv6, table.subarray(tableHeaderBytes + ipv4Bytes), now);
    return true;
  }

  private adoptSection({ isIpv6, recordBytes, keyBytes }: Section<Attachment>, records: Uint8Array, now: number): void {
    for (let at = 0; at < records.length; at += recordBytes) {
      const key = unpackFlowKey(records, at, isIpv6, ipProtocol.tcp);
      if (key !== undefined) this.adoptRecord(key, records, at + keyBytes, now);
    }
  }

  private adoptRecord(key: FlowKey, table: Uint8Array, at: number, now: number): void {
    const connection = this.find(key) ?? this.add(key, now);
    if (connection === undefined) return;
    const flags = table[at + record.flags] as number;
    connection.delta = read32(table, at + record.delta);
    connection.timeDelta = read32(table, at + record.timeDelta);
    connection.clientIsn = (flags & flag.clientIsn) !== 0 ? read32(table, at + record.clientIsn) : undefined;
    connection.flags = flags;
    connection.windowShift = Math.min(table[at + record.windowShift] as number, 14);
    connection.lastSeen = now;
    this.store(connection);
    this.age(connection, now);
  }

  clear(): void {
    for (const { bySlot } of [this.ipv4, this.ipv6]) {
      for (const connection of bySlot) {
        this.onForget(connection);
        connection.slot = -1;
      }
      bySlot.length = 0;
    }
    this.map.clear();
    for (const queue of Object.values(this.queues)) queue.clear();
  }

  *values(): Generator<Connection<Attachment>> {
    yield* this.ipv4.bySlot;
    yield* this.ipv6.bySlot;
  }

  /** Follows the life of a connection by a frame to the guest. */
  noteClientFrame(connection: Connection<Attachment>, view: FrameView, now: number): void {
    connection.lastSeen = now;
    if (view.isSyn) this.noteClientSyn(connection, view);
    else if (view.isReset) this.noteClientReset(connection, view, now);
    // A reset that the client did not mean (it goes on) may have been forged: the connection lives.
    else if (hasClientReset(connection)) this.lower(connection, flag.clientReset, now);
    if ((connection.flags & flag.open) === 0 && view.hasAck && !view.isReset && answers(connection, view.ack))
      this.raise(connection, flag.open, now);
    if (view.isFin && isInWindow(connection, view.sequence + view.payloadBytes) !== false)
      this.raise(connection, flag.clientFin, now);
  }

  /** One that the guest does not take ends nothing, and may be anybody's. */
  private noteClientReset(connection: Connection<Attachment>, view: FrameView, now: number): void {
    const isNeeded = connection.delta !== 0 || connection.timeDelta !== 0;
    if (isInWindow(connection, view.sequence) ?? !isNeeded) this.raise(connection, flag.clientReset, now);
  }

  /**
   * A client that does not scale its window forbids the guest to scale its own; but only who knows the guest's number
   * is it.
   */
  private noteClientSyn(connection: Connection<Attachment>, view: FrameView): void {
    if (!view.hasAck || connection.windowShift === 0 || connection.clientIsn === undefined) return;
    const acknowledged = distance(view.ack, connection.clientIsn);
    if (acknowledged < 1 || acknowledged > largestSynBytes) return;
    if (synOptions(view.frame, view.transportAt).windowScale !== undefined) return;
    connection.windowShift = 0;
    connection.flags |= flag.unscaled;
    this.store(connection);
  }

  /** Follows the life of a connection by a frame of the guest. */
  noteGuestFrame(connection: Connection<Attachment>, view: FrameView, now: number): void {
    connection.lastSeen = now;
    if (view.hasAck) noteGuestAck(connection, view);
    const goesOn = (view.flags & (tcpFlag.syn | tcpFlag.rst)) === 0 && connection.clientIsn === undefined;
    if (goesOn) this.raise(connection, flag.open, now);
    if (view.isReset) this.raise(connection, flag.guestReset, now);
    if (view.isFin) this.raise(connection, flag.guestFin, now);
    // A SYN that was on its way when the client's answer came is an older word than that.
    if (!view.isSyn || (connection.flags & flag.unscaled) !== 0) return;
    const shift = synOptions(view.frame, view.transportAt).windowScale ?? 0;
    if (shift === connection.windowShift) return;
    connection.windowShift = shift;
    this.store(connection);
  }

  private raise(connection: Connection<Attachment>, bit: number, now: number): void {
    if ((connection.flags & bit) !== 0) return;
    connection.flags |= bit;
    this.store(connection);
    this.age(connection, now);
  }

  private lower(connection: Connection<Attachment>, bit: number, now: number): void {
    connection.flags &= ~bit;
    this.store(connection);
    this.age(connection, now);
  }

  /** The connection may be in another phase: puts it into the queue of that one. */
  private age(connection: Connection<Attachment>, now: number): void {
    const phase = phaseOf(connection);
    if (phase !== 'open') this.queue(connection, phase, now);
  }

  private queue(connection: Connection<Attachment>, phase: Ageing, since: number): void {
    const { bit } = ageing[phase];
    if ((connection.queues & bit) !== 0) return;
    connection.queues |= bit;
    connection.since = since;
    this.queues[phase].push(connection);
  }

  /** Forgets connections whose time is over; looks at no others. One that is busy stays a little longer. */
  expire(now: number): void {
    this.expireOf('opening', now);
    this.expireOf('closing', now);
    this.expireOf('ended', now);
  }

  private expireOf(phase: Ageing, now: number): void {
    const queue = this.queues[phase];
    const { bit, ms } = ageing[phase];
    for (let left = queue.length; left > 0; left -= 1) {
      const connection = queue.peek();
      if (connection === undefined) return;
      const isHere = connection.slot >= 0 && phaseOf(connection) === phase;
      if (isHere && now - connection.since < ms) return;
      queue.shift();
      connection.queues &= ~bit;
      if (!isHere) continue;
      if (now - connection.lastSeen >= ms && !this.isBusy(connection)) this.forget(connection);
      else this.queue(connection, phase, Math.max(connection.lastSeen, now - ms + busyMs));
    }
  }

  private evictOne(): boolean {
    this.evicted += 1;
    return this.evictOldest('ended') || this.evictOldest('opening') || this.evictUntranslated();
  }

  /** Looks at a few that have been in this phase for longest. */
  private evictOldest(phase: Ageing): boolean {
    const queue = this.queues[phase];
    for (let tries = Math.min(queue.length, evictTries); tries > 0; tries -= 1) {
      const oldest = queue.shift();
      if (oldest === undefined) return false;
      oldest.queues &= ~ageing[phase].bit;
      if (oldest.slot < 0 || phaseOf(oldest) !== phase) continue;
      if (!this.isBusy(oldest)) {
        this.forget(oldest);
        return true;
      }
      this.queue(oldest, phase, oldest.since);
    }
    return false;
  }

  /** Looks at a few connections in turn for one that can be forgotten: its sequence numbers need no translation. */
  private evictUntranslated(): boolean {
    for (let tries = 0; tries < evictTries; tries += 1) {
      this.evictAt = (this.evictAt + 1) % this.map.size;
      const { bySlot } = this.ipv4;
      const connection = bySlot[this.evictAt] ?? this.ipv6.bySlot[this.evictAt - bySlot.length];
      if (connection === undefined || connection.delta !== 0 || this.isBusy(connection)) continue;
      this.forget(connection);
      return true;
    }
    return false;
  }
}

/** Connections looked at to make room for one. */
const evictTries = 64;

/** One that is busy when its time is over is looked at again after this. */
const busyMs = 1000;

/** A SYN and what it may carry: less than an IP packet. */
const largestSynBytes = 0xffff;
