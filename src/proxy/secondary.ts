// The proxy on the secondary node: a pure core between the primary node and the SVM.
//
//    primary node ── mirrored ingress, ISNs ──► (guest space) ──► SVM
//    primary node ◄── numbered, client space ◄── fromGuest        SVM
//
// The SVM's frames are translated before they are sent, so a match proves to the primary that this node knows the
// offset and can carry the connection on. A connection that began in this epoch is *paired* when the SVM's ISN and the
// one that the primary announced are both known; until then its frames wait here.
//
// What the SVM sent is kept until it is known to have left: TCP until the client acknowledged it (seen in the ingress),
// of pure ACKs only the newest, everything else until the primary confirms. Whatever is left is sent at a takeover.
//
// Ingress that came after a capture is logged, because the checkpoint does not know of it:
//
//    ... | marker e+1 | frame | isn | frame | ...
//                      └─ replayed by resume(e+1) in colo mode; kept for a takeover in remus mode

import { Fifo } from '../base/fifo.ts';
import { FrameView } from '../packet/frame-view.ts';
import { advance, distance, later } from '../packet/sequence.ts';
import { Bypass, type BypassCount, type BypassRule } from './bypass.ts';
import { type Announcement, unpackAnnouncement } from './connections/announcement.ts';
import { type Connection, isKnownIsn } from './connections/connection.ts';
import { ConnectionTable } from './connections/connection-table.ts';
import { isTranslated, QuoteTranslator, restamp, toClientSpace, toGuestSpace } from './connections/translate.ts';
import { newSecondaryCounters, type SecondaryCounters } from './counters.ts';
import { IngressLog } from './ingress-log.ts';
import { proxyLimits } from './limits.ts';
import { areFrames, decodeFrames } from './output/held-frames.ts';
import { arePatches, Patches, packTable, patchesOf, tableOf, unpackPatch } from './patches.ts';

export interface SecondaryPorts {
  toGuest(frame: Uint8Array): void;
  toPrimary(epoch: number, id: number, frame: Uint8Array): void;
}

/** A frame of the SVM, client space, that may not have left yet. */
interface Kept {
  id: number;
  frame: Buffer;
  /** TCP: where it begins, and the acknowledgement that settles it. */
  sequence: number;
  end: number;
  isGone: boolean;
}

/** What the secondary hangs on a connection. */
interface Pending {
  /** Frames of the SVM, guest space, that wait for the offset. */
  unpaired: Buffer[];
  kept: Kept[];
  newestAck: Kept | undefined;
  clientAck: number | undefined;
  /** What the primary said of a later connection on this 5-tuple, which the SVM has not begun. */
  announced: { isn: number; time: number | undefined } | undefined;
  /** The primary's TSval of its SYN, and the SVM's latest; client space. */
  announcedTime: number | undefined;
  latestTime: number | undefined;
}

export interface SecondaryOptions {
  mode: 'colo' | 'remus';
  /** Traffic of which nothing is compared: the SVM's is dropped. */
  bypass?: readonly BypassRule[];
}

type PendingConnection = Connection<Pending>;

export class SecondaryProxy {
  private readonly ports: SecondaryPorts;
  private readonly mode: 'colo' | 'remus';
  private readonly table: ConnectionTable<Pending>;
  private readonly log = new IngressLog();
  private readonly count: SecondaryCounters = newSecondaryCounters();
  private readonly view = new FrameView();
  private readonly flushView = new FrameView();
  private readonly quotes: QuoteTranslator;
  private readonly bypass: Bypass;
  private readonly patchView = new FrameView();
  /** What clients were told by the primary, and the SVM says otherwise. */
  private readonly patches = new Patches();

  private epoch = 0;
  private isRunning = false;
  private nextId = 1;
  /** Everything kept, in the order of its numbers; what is gone is taken out now and then. */
  private kept = new Fifo<Kept>();
  private readonly keptById = new Map<number, Kept>();
  private held: Uint8Array[] = [];
  private readonly toGuest = (frame: Uint8Array): void => this.ports.toGuest(frame);
  /** The newest epoch whose held frames have left; the primary may say so before the apply is done here. */
  private releasedEpoch = 0;

  constructor(ports: SecondaryPorts, options: SecondaryOptions) {
    this.ports = ports;
    this.mode = options.mode;
    this.bypass = new Bypass(options.bypass ?? []);
    this.quotes = new QuoteTranslator((key) => this.table.find(key));
    this.table = new ConnectionTable<Pending>(
      (connection) => this.giveUp(connection),
      (connection) => !connection.paired,
    );
  }

  /** Mirrored ingress. */
  fromPrimary(frame: Uint8Array, now: number): void {
    this.count.ingressFrames += 1;
    if (this.isLogging) this.log.pushFrame(frame);
    if (this.isRunning) this.deliver(frame, now, this.toGuest);
  }

  /** Ingress that the guest of the last capture may not have had: for the log alone. */
  logOnly(frame: Uint8Array): void {
    if (this.isLogging) this.log.pushFrame(frame);
  }

  private get isLogging(): boolean {
    return this.mode === 'remus' || this.log.hasMarkers;
  }

  private deliver(frame: Uint8Array, now: number, toGuest: (frame: Uint8Array) => void): void {
    const view = this.view.parse(frame);
    const isTcp = view.kind === 'tcp' || view.takeFirstFragment();
    const connection = isTcp ? this.table.ofClientFrame(view) : undefined;
    if (connection === undefined) {
      toGuest(this.quotes.toGuest(view));
      return;
    }
    this.table.noteClientFrame(connection, view, now);
    if (view.hasAck) this.noteClientAck(connection, view.ack);
    // The client cannot have acknowledged what nobody sent: this belongs to an older connection, or to a state of the
    // primary that this SVM will be loaded with before it matters.
    if (!connection.paired && view.hasAck) this.count.dropped.unpaired += 1;
    else toGuest(isTranslated(connection) ? toGuestSpace(view, connection) : frame);
  }

  /** The primary's ISN of a connection, client space. */
  isn(announcement: Uint8Array, isn: number, now: number): void {
    const announced = unpackAnnouncement(announcement);
    if (announced === undefined) return;
    if (this.isLogging) this.log.pushIsn(announced, isn);
    if (this.isRunning) this.learnIsn(announced, isn, now);
  }

  private learnIsn({ key, time }: Announcement, isn: number, now: number): void {
    const known = this.table.find(key);
    const connection = known ?? this.table.add(key, now);
    if (connection === undefined) return;
    if (known?.paired === true) {
      // The client may be in the old connection still, and the SVM is: until the SVM begins anew, its numbers count.
      if (known.clientIsn !== isn) pendingOf(known).announced = { isn, time };
      return;
    }
    connection.paired = false;
    connection.clientIsn = isn;
    pendingOf(connection).announcedTime = time;
    this.pair(connection);
  }

  /** The SVM begins a connection on a 5-tuple of which it had one; the primary may have begun it before. */
  private beginAnew(connection: PendingConnection, now: number): void {
    const announced = connection.attachment?.announced;
    this.giveUp(connection);
    this.table.restart(connection, now);
    connection.paired = false;
    if (announced === undefined) return;
    connection.clientIsn = announced.isn;
    pendingOf(connection).announcedTime = announced.time;
  }

  private pair(connection: PendingConnection): void {
    if (connection.clientIsn === undefined || connection.guestIsn === undefined) return;
    connection.delta = (connection.clientIsn - connection.guestIsn) >>> 0;
    const pending = connection.attachment;
    const time = pending?.announcedTime;
    if (time !== undefined && connection.guestTime !== undefined) {
      connection.timeDelta = (time - connection.guestTime) >>> 0;
    }
    connection.paired = true;
    this.table.store(connection);
    if (pending === undefined) return;
    const frames = pending.unpaired;
    pending.unpaired = [];
    for (const frame of frames) this.sendTcp(connection, this.flushView.parse(frame));
  }

  /** Everything after it in the stream belongs after the capture of `epoch`. */
  captureMarker(epoch: number): void {
    this.log.mark(epoch);
  }

  abortMarker(epoch: number): void {
    this.log.unmark(epoch);
    if (this.mode === 'colo' && !this.log.hasMarkers) this.log.clear();
  }

  /** A frame of the SVM. */
  fromGuest(frame: Uint8Array, now: number): void {
    if (!this.isRunning) {
      this.count.dropped.standing += 1;
      return;
    }
    const view = this.view.parse(frame);
    if (view.refusal !== undefined) this.count.malformed += 1;
    if (this.bypass.takes(view)) this.count.dropped.bypass += 1;
    else if (view.kind === 'tcp') this.fromGuestTcp(view, now);
    else this.sendOther(view.quoteAt === 0 ? frame : this.quotes.toClient(view));
  }

  private fromGuestTcp(view: FrameView, now: number): void {
    const connection = this.table.ofGuestFrame(view) ?? this.table.add(view.key, now);
    if (connection === undefined) {
      this.sendOther(view.frame);
      return;
    }
    if (view.isSyn) this.noteSyn(connection, view, now);
    this.table.noteGuestFrame(connection, view, now);
    if (connection.paired || view.isReset) this.sendTcp(connection, view);
    else this.waitForPair(connection, view.frame);
    if (!connection.paired) this.pair(connection);
  }

  private noteSyn(connection: PendingConnection, view: FrameView, now: number): void {
    const { sequence } = view;
    if (connection.paired ? isKnownIsn(connection, sequence) : connection.guestIsn === sequence) return;
    if (connection.paired) this.beginAnew(connection, now);
    connection.guestIsn = sequence;
    connection.guestTime = view.timestampsAt === 0 ? undefined : view.timestamp;
    // What came before the SYN is of an older connection.
    if (connection.attachment !== undefined) connection.attachment.unpaired = [];
  }

  private waitForPair(connection: PendingConnection, frame: Uint8Array): void {
    const { unpaired } = pendingOf(connection);
    unpaired.push(Buffer.from(frame));
    if (unpaired.length <= proxyLimits.unpairedFramesMax) return;
    // The SYN stays: without it nothing behind it can be matched.
    unpaired.splice(1, 1);
    this.count.dropped.unpaired += 1;
  }

  private sendTcp(connection: PendingConnection, view: FrameView): void {
    // A reset that answers a segment without ACK has sequence number 0 in every space.
    const isNumbered = !(view.isReset && view.sequence === 0);
    const delta = isNumbered ? connection.delta : 0;
    const frame = isNumbered ? toClientSpace(view, connection) : Buffer.from(view.frame);
    if (!this.patches.isEmpty) this.patches.apply(this.patchView.parse(frame));
    if (view.timestampsAt !== 0 && !view.isReset) this.noteTime(connection, view.timestamp);
    const sequence = (view.sequence + delta) >>> 0;
    const bytes = view.payloadBytes + (view.isSyn ? 1 : 0) + (view.isFin ? 1 : 0);
    const kept = { id: this.takeId(), frame, sequence, end: advance(sequence, bytes), isGone: false };
    this.keepTcp(pendingOf(connection), kept, bytes === 0 && !view.isReset);
    this.emit(kept);
  }

  private noteTime(connection: PendingConnection, guestTime: number): void {
    const pending = pendingOf(connection);
    const time = (guestTime + connection.timeDelta) >>> 0;
    pending.latestTime = pending.latestTime === undefined ? time : later(pending.latestTime, time);
  }

  private keepTcp(pending: Pending, kept: Kept, isPureAck: boolean): void {
    if (isPureAck) {
      if (pending.newestAck !== undefined) this.drop(pending.newestAck);
      pending.newestAck = kept;
      this.keep(kept);
      return;
    }
    const isAcked = pending.clientAck !== undefined && distance(kept.end, pending.clientAck) <= 0;
    if (isAcked || isRepeated(pending.kept, kept)) return;
    pending.kept.push(kept);
    this.keep(kept);
  }

  private sendOther(frame: Uint8Array): void {
    const kept = { id: this.takeId(), frame: Buffer.from(frame), sequence: 0, end: 0, isGone: false };
    this.keptById.set(kept.id, kept);
    this.keep(kept);
    this.emit(kept);
  }

  /** Ids wrap as they do on the wire; one that a frame has which may still be confirmed is left out. */
  private takeId(): number {
    for (;;) {
      const id = this.nextId;
      this.nextId = (id + 1) >>> 0;
      if (!this.keptById.has(id)) return id;
    }
  }

  private emit(kept: Kept): void {
    this.count.egressFrames += 1;
    this.ports.toPrimary(this.epoch, kept.id, kept.frame);
  }

  private noteClientAck(connection: PendingConnection, ack: number): void {
    if (!this.patches.isEmpty) this.patches.acked(connection.key, ack);
    const pending = connection.attachment;
    if (pending === undefined) return;
    pending.clientAck = pending.clientAck === undefined ? ack : later(pending.clientAck, ack);
    for (;;) {
      const oldest = pending.kept[0];
      if (oldest === undefined || distance(oldest.end, ack) > 0) return;
      pending.kept.shift();
      this.drop(oldest);
    }
  }

  private keep(kept: Kept): void {
    this.kept.push(kept);
    this.count.unconfirmedFrames += 1;
    this.count.unconfirmedBytes += kept.frame.length;
    while (
      this.count.unconfirmedFrames > proxyLimits.unconfirmedFramesMax ||
      this.count.unconfirmedBytes > proxyLimits.unconfirmedBytesMax
    ) {
      this.dropOldest();
    }
    if (this.kept.length > 2 * this.count.unconfirmedFrames + 1024) this.compact();
  }

  private dropOldest(): void {
    const oldest = this.kept.shift();
    if (oldest === undefined || oldest.isGone) return;
    this.drop(oldest);
    this.count.dropped.unconfirmed += 1;
  }

  private compact(): void {
    const kept = new Fifo<Kept>();
    for (const one of this.kept) if (!one.isGone) kept.push(one);
    this.kept = kept;
  }

  private drop(kept: Kept): void {
    if (kept.isGone) return;
    kept.isGone = true;
    this.count.unconfirmedFrames -= 1;
    this.count.unconfirmedBytes -= kept.frame.length;
    this.keptById.delete(kept.id);
  }

  /**
   * The primary's time in a header is said in place of the SVM's from now on. False, and nothing is changed, when this
   * SVM is not the one that it is about.
   */
  tolerate(packed: Uint8Array): boolean {
    const patch = unpackPatch(packed);
    const connection = patch === undefined ? undefined : this.table.find(patch.key);
    if (patch === undefined || connection?.paired !== true || !this.isRunning || patch.epoch !== this.epoch)
      return false;
    if (!this.patches.add(patch)) return false;
    for (const { frame } of connection.attachment?.kept ?? []) this.patches.apply(this.flushView.parse(frame));
    return true;
  }

  private giveUp(connection: PendingConnection): void {
    this.patches.forget(connection.key);
    const pending = connection.attachment;
    if (pending === undefined) return;
    for (const kept of pending.kept) this.drop(kept);
    if (pending.newestAck !== undefined) this.drop(pending.newestAck);
    connection.attachment = undefined;
  }

  /** An apply begins: the SVM stands still, and its late output counts no more. */
  suspend(): void {
    this.isRunning = false;
  }

  /**
   * What keeps `resume` from going on from such a state; undefined: nothing. To be asked before the checkpoint counts.
   */
  wrongWith({ table, held }: { table: Uint8Array; held: Uint8Array }): string | undefined {
    if (!this.table.isTable(tableOf(table)) || !arePatches(table)) return 'its connection table is none';
    return areFrames(held) ? undefined : 'what it held is no frames';
  }

  /** The SVM has been loaded with the checkpoint of `epoch`. In colo mode it runs from here on. */
  resume(epoch: number, table: Uint8Array, held: Uint8Array, now: number): void {
    this.patches.clear();
    this.table.adopt(tableOf(table), now);
    for (const patch of patchesOf(table)) this.patches.add(patch);
    this.forgetAll();
    this.epoch = epoch;
    this.held = epoch <= this.releasedEpoch ? [] : decodeFrames(held);
    this.log.dropBefore(epoch);
    if (this.mode === 'remus') return;
    this.isRunning = true;
    for (const item of this.log.items()) {
      if (item.isn === undefined) this.deliver(item.frame, now, this.toGuest);
      else this.learnIsn(item.announcement, item.isn, now);
    }
    if (!this.log.hasMarkers) this.log.clear();
  }

  private forgetAll(): void {
    for (const kept of this.kept) this.drop(kept);
    this.kept.clear();
    this.keptById.clear();
  }

  /** What these frames were matched with has left. */
  confirm(ids: readonly number[]): void {
    for (const id of ids) {
      const kept = this.keptById.get(id);
      if (kept !== undefined) this.drop(kept);
    }
  }

  /** The frames that the checkpoint of `epoch` brought along have left. */
  released(epoch: number): void {
    this.releasedEpoch = Math.max(this.releasedEpoch, epoch);
    if (epoch === this.epoch) this.held = [];
  }

  /** This node carries on. `table` is for its PrimaryProxy; `resend` goes to the network, `replay` to the guest. */
  takeover(now: number): { table: Uint8Array; resend: Uint8Array[]; replay: Uint8Array[] } {
    for (const connection of this.table.values()) if (!connection.paired) this.adoptOwnNumbers(connection);
    this.isRunning = false;
    const resend: Uint8Array[] = [...this.held];
    for (const kept of this.kept) if (!kept.isGone) resend.push(kept.frame);
    for (const frame of resend) this.bringUpToDate(frame);
    const replay: Uint8Array[] = [];
    if (this.mode === 'remus') {
      for (const item of this.log.items()) {
        if (item.isn === undefined) this.deliver(item.frame, now, (frame) => void replay.push(Buffer.from(frame)));
      }
    }
    return { table: packTable(this.table.encode(), this.patches), resend, replay };
  }

  /** The client drops what is older than the latest it has seen, which may be anything up to the SVM's latest. */
  private bringUpToDate(frame: Uint8Array): void {
    const view = this.flushView.parse(frame);
    if (view.kind !== 'tcp' || view.timestampsAt === 0) return;
    const latest = this.table.ofGuestFrame(view)?.attachment?.latestTime;
    if (latest !== undefined && distance(latest, view.timestamp) > 0) restamp(view, latest);
  }

  /** The client was never shown the primary's numbers of this connection: the SVM's are as good. */
  private adoptOwnNumbers(connection: PendingConnection): void {
    connection.clientIsn = connection.guestIsn;
    connection.delta = 0;
    connection.timeDelta = 0;
    connection.paired = true;
    this.table.store(connection);
    const frames = connection.attachment?.unpaired ?? [];
    for (const frame of frames) {
      const view = this.flushView.parse(frame);
      const kept = { id: this.takeId(), frame, sequence: view.sequence, end: view.sequence, isGone: false };
      this.keep(kept);
    }
  }

  /** Output of the SVM that the operator declared unprotected, by rule. */
  bypassed(): readonly BypassCount[] {
    return this.bypass.counts;
  }

  get counters(): Readonly<SecondaryCounters> {
    this.count.connections = this.table.size;
    this.count.logItems = this.log.length;
    this.count.logBytes = this.log.bytes;
    this.count.dropped.log = this.log.dropped;
    return this.count;
  }
}

/** Whether a retransmission says nothing that is not kept already. New data is behind everything kept. */
function isRepeated(all: readonly Kept[], kept: Kept): boolean {
  const last = all[all.length - 1];
  if (last === undefined || distance(kept.sequence, last.end) >= 0) return false;
  return all.some(({ sequence, end }) => sequence === kept.sequence && end === kept.end);
}

function pendingOf(connection: PendingConnection): Pending {
  connection.attachment ??= {
    unpaired: [],
    kept: [],
    newestAck: undefined,
    clientAck: undefined,
    announced: undefined,
    announcedTime: undefined,
    latestTime: undefined,
  };
  return connection.attachment;
}
