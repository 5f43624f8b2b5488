// Links between the nodes, with the promises of src/channel/link.ts: in order, whole, each message once, or an end with
// its reason. Under them stands a path of the network between two hosts, one for each direction, that can be slow,
// stalled or cut; a cut loses nothing by itself, as TCP under a link goes on trying.
//
//    send ─► wire (delay, bandwidth, cut) ─► receiver: message | bye | end (process gone) | reset | damaged (checksum)
//
// A message is handed over in a buffer that is overwritten when the call returns: who keeps it keeps rubbish. Large
// parts are not copied when they are sent but when they leave, as the real link does.

import { ColoError, errorCodes } from '../../src/base/errors.ts';
import { Fifo } from '../../src/base/fifo.ts';
import { copiedPartBytesMax } from '../../src/channel/limits.ts';
import type { Hello, LinkHandlers, LinkKind } from '../../src/channel/link.ts';
import type { PeerLink } from '../../src/node/platform.ts';
import type { SimProcess } from '../host/process.ts';
import type { Schedule } from '../world/schedule.ts';

/** One direction between two hosts. */
export class Path {
  cut = false;
  delayMs: number;
  jitterMs: number;
  bytesPerMs: number;
  private readonly waiting: (() => void)[] = [];

  constructor(delayMs: number, jitterMs: number, bytesPerMs: number) {
    this.delayMs = delayMs;
    this.jitterMs = jitterMs;
    this.bytesPerMs = bytesPerMs;
  }

  whenWhole(action: () => void): void {
    this.waiting.push(action);
  }

  heal(): void {
    this.cut = false;
    for (const action of this.waiting.splice(0)) action();
  }
}

type Item =
  | { kind: 'message'; type: number; parts: Uint8Array[]; bytes: number; event: number }
  | { kind: 'bye'; why: string }
  | { kind: 'end' }
  /** The connection was reset, by a kernel or by something on the way. */
  | { kind: 'reset' };

const closeTimeoutMs = 1000;

export class SimLink implements PeerLink {
  readonly peer: Hello;
  readonly process: SimProcess;
  readonly kind: LinkKind;
  other: SimLink | undefined;
  private readonly schedule: Schedule;
  private readonly path: Path;
  private readonly random: () => number;
  private readonly congestedBytes: number;
  private handlers: LinkHandlers | undefined;
  private readonly early: Item[] = [];
  private readonly wire = new Fifo<{ at: number; item: Item }>();
  private departAt = 0;
  private lastArrival = 0;
  private pumping = false;
  private queuedBytes = 0;
  private congested = false;
  private drainWaiters: (() => void)[] = [];
  private over = false;
  private told = false;
  private failure: ColoError | undefined = undefined;
  endedByPeer = false;
  farewell = '';
  readonly ends = { local: '', remote: '' };
  /** The next message is damaged on the way. */
  damageNext = false;
  /** Nothing of this side is delivered any more: its host is gone without a word. */
  private mute = false;
  /** Its kernel has ended the connection, and its owner may not know yet. */
  private aborted = false;

  constructor(options: {
    peer: Hello;
    process: SimProcess;
    kind: LinkKind;
    path: Path;
    random: () => number;
    congestedBytes: number;
  }) {
    this.peer = options.peer;
    this.process = options.process;
    this.kind = options.kind;
    this.schedule = options.process.schedule;
    this.path = options.path;
    this.random = options.random;
    this.congestedBytes = options.congestedBytes;
  }

  get waitingBytes(): number {
    return this.queuedBytes;
  }

  get ended(): boolean {
    return this.over;
  }

  send(type: number, ...parts: Uint8Array[]): void {
    if (this.over || !this.process.alive) return;
    if (!this.process.acts('send')) {
      const copies = parts.map((part) => Uint8Array.from(part));
      this.process.run(() => this.send(type, ...copies));
      return;
    }
    const bytes = parts.reduce((sum, part) => sum + part.length, 16);
    const kept = parts.map((part) => (part.length <= copiedPartBytesMax ? Uint8Array.from(part) : part));
    this.queuedBytes += bytes;
    if (this.queuedBytes > this.congestedBytes) this.congested = true;
    this.put({ kind: 'message', type, parts: kept, bytes, event: this.schedule.count }, bytes);
  }

  start(handlers: LinkHandlers): void {
    this.handlers = handlers;
    if (this.over) this.schedule.after(0, () => this.process.run(() => this.tell(this.failure)));
    const early = this.early.splice(0);
    if (early.length === 0) return;
    this.schedule.after(0, () => {
      for (const item of early) this.process.run(() => this.receive(item));
    });
  }

  drain(): Promise<void> {
    if (!this.congested || this.over) return Promise.resolve();
    return new Promise((resolve) => void this.drainWaiters.push(resolve));
  }

  close(why = ''): void {
    if (this.process.paused) return this.process.run(() => this.close(why));
    if (this.over || !this.process.alive) return;
    this.put({ kind: 'bye', why }, 16);
    this.finish();
    this.schedule.after(closeTimeoutMs * this.random(), () => this.process.run(() => this.tell(undefined)));
  }

  destroy(): void {
    if (this.process.paused) return this.process.run(() => this.destroy());
    if (this.over || !this.process.alive) return;
    this.finish();
    this.put({ kind: 'end' }, 0);
    this.schedule.after(0, () => this.process.run(() => this.tell(undefined)));
  }

  /**
   * The process of this side is dead: its kernel says so, unless the whole host is gone. One that stood still has left
   * something unread, which makes a reset of the end.
   */
  processEnded(options: { silent: boolean; loseEvent: number | undefined }): void {
    this.finish();
    this.told = true;
    if (options.loseEvent !== undefined) this.loseFrom(options.loseEvent);
    if (options.silent) this.mute = true;
    else this.put({ kind: this.process.paused ? 'reset' : 'end' }, 0);
  }

  /** The host is back and knows nothing of this connection: whoever writes on it learns that. */
  hostReturned(): void {
    if (!this.mute) return;
    this.mute = false;
    this.wire.clear();
    this.put({ kind: 'reset' }, 0);
  }

  /** What was sent in event `event` had not left the process yet. */
  private loseFrom(event: number): void {
    const all = [...this.wire];
    this.wire.clear();
    for (const entry of all) if (entry.item.kind !== 'message' || entry.item.event < event) this.wire.push(entry);
  }

  private put(item: Item, bytes: number): void {
    if (this.aborted) return;
    const { path, schedule } = this;
    this.departAt = Math.max(this.departAt, schedule.now) + bytes / path.bytesPerMs;
    this.lastArrival = Math.max(this.lastArrival, this.departAt + path.delayMs + path.jitterMs * this.random());
    this.wire.push({ at: this.lastArrival, item });
    this.pump();
  }

  private pump(): void {
    const head = this.wire.peek();
    if (this.pumping || head === undefined) return;
    this.pumping = true;
    this.schedule.at(head.at, () => {
      this.pumping = false;
      if (this.mute) return;
      if (this.path.cut) {
        this.path.whenWhole(() => this.retry());
        return;
      }
      // What is due at this moment arrives in one piece, as a socket hands it over.
      for (let next = this.wire.peek(); next !== undefined && next.at <= this.schedule.now; next = this.wire.peek()) {
        this.wire.shift();
        this.arrive(next.item);
      }
      this.pump();
    });
  }

  /** After a cut the other end hears of what waited when TCP tries again. */
  private retry(): void {
    const wait = this.random() * 50;
    let at = this.schedule.now + wait;
    for (const entry of this.wire) {
      entry.at = Math.max(entry.at, at);
      at = entry.at;
    }
    this.lastArrival = Math.max(this.lastArrival, at);
    this.pump();
  }

  private arrive(item: Item): void {
    const { other } = this;
    if (other === undefined) return;
    const isDamaged = item.kind === 'message' && this.damageNext;
    if (isDamaged) this.damageNext = false;
    other.process.run(() => (isDamaged ? other.fail('sent something damaged', true) : other.receive(item)));
    if (item.kind !== 'message') return;
    this.queuedBytes -= item.bytes;
    if (this.queuedBytes > 0 || !this.congested) return;
    this.congested = false;
    this.process.run(() => this.wakeDrainWaiters());
  }

  private receive(item: Item): void {
    if (this.over || this.aborted) return;
    if (this.handlers === undefined) {
      this.early.push(item);
      return;
    }
    if (item.kind === 'bye' || item.kind === 'end') this.endedByPeer = true;
    if (item.kind === 'bye') {
      this.farewell = item.why;
      this.finish();
      this.tell(undefined);
    } else if (item.kind === 'end') this.fail('ended without saying bye: its process is gone');
    else if (item.kind === 'reset') this.fail('broke');
    else {
      const payload = Buffer.concat(item.parts);
      this.handlers.message(item.type, payload);
      if (payload.length < 4096) payload.fill(0xe7);
    }
  }

  /** This side gives the link up; the other side hears the end of it, with `saysWhy` also the reason. */
  fail(what: string, saysWhy = false): void {
    if (this.over) return;
    this.finish();
    const { kind, peer } = this;
    this.failure = new ColoError(errorCodes.channel, `the ${kind} link to ${peer.node} is lost: the peer ${what}`);
    this.tell(this.failure);
    this.put(saysWhy ? { kind: 'bye', why: `${peer.node} ${what}` } : { kind: 'end' }, 0);
  }

  /** Its kernel gives the connection up: nothing arrives any more, and its owner hears of it `heardMs` later. */
  abort(heardMs: number): void {
    if (this.over || this.mute) return;
    this.wire.clear();
    this.put({ kind: 'reset' }, 0);
    this.aborted = true;
    this.schedule.after(heardMs, () => this.process.run(() => this.fail('broke')));
  }

  private tell(error: ColoError | undefined): void {
    if (this.told || this.handlers === undefined) return;
    this.told = true;
    this.handlers.closed(error);
  }

  private finish(): void {
    this.over = true;
    this.wakeDrainWaiters();
  }

  private wakeDrainWaiters(): void {
    for (const wake of this.drainWaiters.splice(0)) wake();
  }
}
