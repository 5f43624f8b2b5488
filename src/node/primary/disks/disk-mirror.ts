// The disks of one secondary, from its links to its end: every write of the guest is copied there, and every capture
// marks which of them belong to it. A new secondary gets a new one of these; what outlives it is in disks.ts.
//
//    announce ─► (kept) ─► protect: mirrors begin ─► copied ─► mark(epoch) at each capture ─► applied
//                                                              │
//    end ─► the sink answers what waits for the secondary, at once, or a stop would hang ─► the mirrors are cancelled
//
// A mirror that ends by itself ends the protection, never the guest.

import { afterAwake, type Clock, delay } from '../../../base/clock.ts';
import { ColoError, errorCodes } from '../../../base/errors.ts';
import type { Log } from '../../../base/log.ts';
import { flushEveryBytes, settledBytes, settleMs } from '../../../disk/limits.ts';
import { diskMessages, encodeAbort, encodeHash, encodeSession } from '../../../disk/message.ts';
import { DiskSink } from '../../../disk/sink.ts';
import type { Progress } from '../../../qemu/mirror.ts';
import { jobEndingMs, mirrorProgressMs } from '../../limits.ts';
import type { DiskMirrors, DiskSource, MirrorHandlers, PeerLink } from '../../platform.ts';
import type { DiskNotes } from './disk-notes.ts';

/** What outlives the secondary, and its mirror needs: PrimaryDisks. */
export interface MirrorHome {
  readonly source: DiskSource;
  readonly notes: DiskNotes;
  /** Per disk: whether the guest's flush waits for the secondary. */
  readonly durable: readonly boolean[];
  /** Resolves when the overlays of a takeover are folded, or cannot be. */
  readonly folded: Promise<void>;
  /** Resolves when the mirrors of the secondaries before have ended. */
  readonly earlierEnded: Promise<void>;
  /** The mirrors of the next secondary begin behind this as well. */
  nextWaitsFor(work: Promise<unknown>): void;
  /** The position before the first record of a new session. */
  newSession(): number;
  /** Lets the host write out the images. */
  flush(): void;
  readonly isFlushing: boolean;
  /** The protection ends, for a reason of the disks. */
  failed(why: string): void;
  /** This mirror has ended. */
  ended(mirror: DiskMirror): void;
}

export class DiskMirror {
  /** The initial copy, while it is under way. */
  copying: Progress | null = null;
  /** How much of the disks was not copied, because the secondary had it from before. */
  skippedBytes = 0;
  private readonly home: MirrorHome;
  /** The bulk link of the pairing. */
  private readonly link: PeerLink;
  private readonly context: { clock: Clock; log: Pick<Log, 'info'> };
  private sink: DiskSink | undefined;
  private mirrors: DiskMirrors | undefined;
  private isOver = false;
  /** The position before its first record. */
  private from = 0;
  private sizes: number[] = [];
  /** Where the secondary's replica stands, when it has one that will do. */
  private keptPosition: number | undefined;
  /** The initial copy is done: what is written now is the guest's. */
  private isCopied = false;
  private flushedBytes = 0;
  private marked: { epoch: number; position: number } | undefined;

  constructor(context: { clock: Clock; log: Pick<Log, 'info'> }, home: MirrorHome, link: PeerLink) {
    this.context = context;
    this.home = home;
    this.link = link;
  }

  /** The guest's writes go to the secondary, and wait for it. */
  get isForwarding(): boolean {
    return this.sink !== undefined;
  }

  get backlogBytes(): number {
    return this.sink?.backlogBytes ?? 0;
  }

  get writtenBytes(): number {
    return this.sink?.counters.writtenBytes ?? 0;
  }

  /** The newest position that was given to a record or a mark. */
  get newest(): number {
    return this.sink?.newest ?? this.from;
  }

  /** Tells the secondary what disks there are, and which replica of them it may keep. */
  async announce(): Promise<void> {
    const { source, notes, durable, folded } = this.home;
    await folded;
    this.sizes = await source.sizes();
    this.from = this.home.newSession();
    const { since, lineage } = notes;
    const session = { sizes: this.sizes, durable: durable.includes(true), lineage, from: this.from };
    const payload = encodeSession({ ...session, ...(since === undefined ? {} : { since }) });
    this.link.send(diskMessages.session, payload);
  }

  /** The secondary has the replica of that position; said before it is ready. */
  kept(position: number): void {
    const { since } = this.home.notes;
    if (since === undefined || position < since || position >= this.from)
      throw new ColoError(errorCodes.channel, 'the secondary keeps a replica that it was not offered to keep');
    this.keptPosition = position;
  }

  /** Mirrors every disk to the secondary; resolves when it has everything there is. */
  async protect(): Promise<void> {
    const { home } = this;
    await home.earlierEnded;
    // Nobody would end its mirrors any more, and the guest's writes would wait for it for ever.
    if (this.isOver) throw new ColoError(errorCodes.channel, 'the secondary was lost before its disks were mirrored');
    const sink = this.newSink();
    this.sink = sink;
    const begun = this.begin(sink);
    // However it ends.
    home.nextWaitsFor(begun.catch(() => undefined));
    try {
      await this.untilCopied(await begun);
      // Whatever was answered after the loss says nothing of what the secondary has.
      if (this.isOver) throw new ColoError(errorCodes.channel, 'the secondary was lost while its disks were copied');
    } catch (error) {
      // The secondary is there, so it was the notes: the next copy is of everything.
      if (sink.failed === undefined && this.keptPosition !== undefined) home.notes.clear();
      throw error;
    }
    this.isCopied = true;
    this.context.log.info({ skippedBytes: this.skippedBytes, position: this.keptPosition }, 'the disks are copied');
  }

  /**
   * Before a capture, with the guest running: what is on its way to the secondary and to the image is brought there. A
   * stop flushes the image, and the commit waits for the secondary in any case; so neither is to be done in the pause.
   */
  async settle(): Promise<void> {
    const { sink, home } = this;
    if (sink === undefined) return;
    const { clock } = this.context;
    const end = clock.now() + settleMs;
    if (sink.counters.writtenBytes - this.flushedBytes >= settledBytes) this.flush(sink);
    while ((sink.backlogBytes >= settledBytes || home.isFlushing) && clock.now() < end) await delay(1, clock);
  }

  /** The guest stands still: all it has written belongs to `epoch`. Throws when the secondary lacks some of it. */
  mark(epoch: number): void {
    if (this.sink === undefined) throw new ColoError(errorCodes.checkpoint, 'the disks are not mirrored');
    const position = this.sink.mark(epoch);
    this.marked = { epoch, position };
    this.home.notes.marked(position);
  }

  /** `verify`: what the replicas must be. The guest stands still. */
  async sendHashes(epoch: number): Promise<void> {
    const hashes = await this.home.source.hashes();
    for (const [disk, hash] of hashes.entries())
      if (hash !== '') this.link.send(diskMessages.hash, encodeHash({ epoch, disk, hash }));
  }

  /** That capture never happened. */
  abort(epoch: number): void {
    this.link.send(diskMessages.abort, encodeAbort(epoch));
  }

  /** The secondary's journal holds the records up to this position. */
  held(position: number): void {
    this.sink?.held(position);
  }

  /** The secondary has applied that checkpoint. */
  applied(epoch: number): void {
    if (this.marked?.epoch === epoch) this.home.notes.applied(this.marked.position);
  }

  /** Nothing is forwarded any more, and nothing of the guest waits for it. Once. */
  end(why: string): void {
    if (this.isOver) return;
    this.isOver = true;
    const { sink, mirrors } = this;
    this.copying = null;
    // What was written is counted before the sink is let go.
    this.home.ended(this);
    this.sink = undefined;
    this.mirrors = undefined;
    if (sink === undefined) return;
    sink.fail(why);
    this.home.nextWaitsFor(mirrors?.cancel() ?? Promise.resolve());
  }

  private newSink(): DiskSink {
    return new DiskSink(this.link, { replicated: [...this.home.durable], from: this.from });
  }

  private async begin(sink: DiskSink): Promise<DiskMirrors> {
    const mirrors = await this.startMirrors({
      request: (disk, request, answer) => {
        sink.request(disk, request, answer);
        this.flushSometimes(sink);
      },
      failed: (why, cancelled) => this.onMirrorFailed(sink, why, cancelled),
    });
    if (!this.isOver) {
      this.mirrors = mirrors;
      return mirrors;
    }
    await mirrors.cancel();
    throw new ColoError(errorCodes.channel, 'the secondary was lost while the disks were prepared');
  }

  private async startMirrors(handlers: MirrorHandlers): Promise<DiskMirrors> {
    const { source, notes } = this.home;
    const { name } = notes;
    if (this.keptPosition !== undefined && name !== undefined) return source.notes.mirrorChanged(name, handlers);
    if (name === undefined) await notes.beginIfDue();
    return source.mirror(handlers);
  }

  private onMirrorFailed(sink: DiskSink, why: string, cancelled: boolean): void {
    if (this.isOver) return;
    sink.fail(why);
    const tell = () => {
      if (!this.isOver) this.home.failed(`the mirror of the disks ended: ${why}`);
    };
    // A guest that switched itself off must not be brought back by a secondary: its end comes right behind this.
    if (cancelled) afterAwake(this.context.clock, jobEndingMs, tell);
    else tell();
  }

  private async untilCopied(mirrors: DiskMirrors): Promise<void> {
    let isDone = false;
    const show = (progress: Progress) => {
      // The answer to the last question may come when the copy is done.
      if (!this.isOver && !isDone) this.copying = progress;
    };
    const ask = () => void mirrors.progress().then(show, () => undefined);
    const stop = this.context.clock.every(mirrorProgressMs, ask);
    try {
      await mirrors.copied;
      if (this.keptPosition !== undefined) await this.countSkipped(mirrors);
    } finally {
      isDone = true;
      stop();
      this.copying = null;
    }
  }

  private async countSkipped(mirrors: DiskMirrors): Promise<void> {
    const { totalBytes } = await mirrors.progress();
    this.skippedBytes = this.sizes.reduce((sum, size) => sum + size, 0) - totalBytes;
  }

  /** A stop flushes the images: what is written out before costs no pause. */
  private flushSometimes(sink: DiskSink): void {
    if (this.isCopied && sink.counters.writtenBytes - this.flushedBytes >= flushEveryBytes) this.flush(sink);
  }

  private flush(sink: DiskSink): void {
    if (this.home.isFlushing) return;
    this.flushedBytes = sink.counters.writtenBytes;
    this.home.flush();
  }
}
