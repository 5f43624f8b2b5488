// The disks of a primary's VM, beside its checkpointer: mirrored while there is a secondary, its own otherwise.
//
//    peer ready ─► (fold) ─► mirror ─► copied ─► rounds of the RAM ─► first checkpoint
//    capture:      guest stopped, so the mirror is quiet ─► mark(epoch) ─► ...
//    peer lost ─► the sink fails what waits (at once, or a stop would hang) ─► mirrors cancelled ─► the guest goes on
//    same peer again, with the replica it had ─► only the blocks of the note that began before (disk/notes.ts)
//
// A mirror that ends by itself ends the protection, never the guest. After a failure the next try waits a while, longer
// each time, since it would copy the whole disk again only to fail again.

import { afterAwake, delay } from '../../base/clock.ts';
import { ColoError, errorCodes, errorText } from '../../base/errors.ts';
import { flushEveryBytes, settledBytes, settleMs } from '../../disk/limits.ts';
import { diskMessages, encodeAbort, encodeHash, encodeSession } from '../../disk/message.ts';
import { Notes } from '../../disk/notes.ts';
import { DiskSink } from '../../disk/sink.ts';
import type { Progress } from '../../qemu/mirror.ts';
import type { NodeContext } from '../context.ts';
import { diskPauseMsFirst, diskPauseMsMax, diskRetryMs, jobEndingMs } from '../limits.ts';
import type { ChangeNotes, DiskMirrors, DiskSource, MirrorHandlers, PeerLink } from '../platform.ts';

export interface DisksStatus {
  /** The initial copy, or the fold after a takeover, while it is under way. */
  copying: (Progress & { what: 'copy' | 'fold' }) | null;
  /** Written and not yet held by the secondary. */
  backlogBytes: number;
  writtenBytes: number;
  /** Of the disks, not copied to the secondary of now, because it had them from before. */
  skippedBytes: number;
  /** What last ended the protection of the disks, '' if nothing did. */
  problem: string;
}

export class PrimaryDisks {
  private readonly context: NodeContext;
  private readonly source: DiskSource;
  private readonly lost: (why: string) => void;
  private sink: DiskSink | undefined;
  private mirrors: DiskMirrors | undefined;
  private ending: Promise<void> = Promise.resolve();
  /** How many secondaries were dropped: one that is lost while it waits for the mirrors of the one before it gets none. */
  private dropped = 0;
  private folding: Promise<void> = Promise.resolve();
  private copying: DisksStatus['copying'] = null;
  private flushedBytes = 0;
  private flushing = false;
  private problem = '';
  /** Of the guest's own disk. */
  private trouble = '';
  private stopAsking: (() => void) | undefined;
  private pauseMs = 0;
  private notBefore = 0;
  /** The initial copy is done: what is written now is the guest's. */
  private copied = false;
  private readonly notes: Notes;
  private noting = false;
  /** Written by the guest to earlier secondaries, which tells how large a note has grown. */
  private writtenBefore = 0;
  /** The newest position of earlier sessions, and of this one the position before its first record. */
  private newest = 0;
  private from = 0;
  /** What the secondary that is to come says that it has. */
  private keptPosition: number | undefined;
  private marked: { epoch: number; position: number } | undefined;
  private skippedBytes = 0;
  private sizes: number[] = [];

  /** `lost` ends the protection. */
  constructor(context: NodeContext, source: DiskSource, lost: (why: string) => void) {
    this.context = context;
    this.source = source;
    this.lost = lost;
    this.notes = new Notes(source.notes.renewBytes);
    source.watch((trouble) => this.onTrouble(trouble));
    // A survivor's may have run into it before: nobody tells of that again.
    this.keepAsking();
  }

  /** Its own host's disk is full, as without protection: the guest goes on by itself when there is room again. */
  private onTrouble({ why, waits }: { why: string; waits: boolean }): void {
    // A guest that waits runs into it with each of its requests, and again with each try.
    if (why !== this.trouble) this.context.log.error({ why }, "the guest's own disk");
    this.trouble = why;
    if (waits) this.keepAsking();
  }

  /** Until the guest does not wait. */
  private keepAsking(): void {
    this.stopAsking ??= this.context.clock.every(diskRetryMs, () => void this.askWaiting());
  }

  private async askWaiting(): Promise<void> {
    try {
      // A checkpoint resumes the guest as well; while one may be under way nothing else may.
      if ((await this.source.waits(this.sink === undefined)) === true) return;
    } catch (error) {
      this.context.log.debug({ error: errorText(error) }, 'whether the guest waits is not known');
    }
    this.stopAsking?.();
    this.stopAsking = undefined;
    this.trouble = '';
  }

  get status(): DisksStatus {
    const { sink, copying, problem } = this;
    return {
      copying,
      backlogBytes: sink?.backlogBytes ?? 0,
      writtenBytes: sink?.counters.writtenBytes ?? 0,
      skippedBytes: this.skippedBytes,
      problem: [this.trouble, problem].filter((text) => text !== '').join('; '),
    };
  }

  /** How long no secondary is sought yet. */
  waitMs(now: number): number {
    return Math.max(0, this.notBefore - now);
  }

  /** After a takeover: the overlays become part of the images while the guest runs. */
  fold(): void {
    const { log } = this.context;
    this.folding = this.source
      .fold((progress) => {
        this.copying = { ...progress, what: 'fold' };
      })
      .then(() => log.info('the overlays are folded into the disks'))
      // The overlay stays the guest's disk: nothing is lost, only a file more.
      .catch((error: unknown) => log.warn({ error: errorText(error) }, 'an overlay could not be folded into its disk'))
      .finally(() => {
        this.copying = null;
      });
  }

  /** A secondary is sought at once: its operator may have made room. */
  hurry(): void {
    this.notBefore = 0;
  }

  /** Tells a new secondary what disks there are. */
  async announce(link: PeerLink): Promise<void> {
    await this.folding;
    const durable = this.disks.some((disk) => disk.flush === 'replicated');
    this.sizes = await this.source.sizes();
    this.keptPosition = undefined;
    // One further, so that no two marks of one position can be of different disks.
    this.from = this.newest + 1;
    this.newest = this.from;
    const { since } = this.notes;
    const session = { sizes: this.sizes, durable, lineage: this.source.notes.lineage, from: this.from };
    link.send(diskMessages.session, encodeSession({ ...session, ...(since === undefined ? {} : { since }) }));
  }

  /** The secondary has the replica of that position; said before it is ready. */
  kept(position: number): void {
    const { since } = this.notes;
    if (since === undefined || position < since || position >= this.from)
      throw new ColoError(errorCodes.channel, 'the secondary keeps a replica that it was not offered to keep');
    this.keptPosition = position;
  }

  /** Mirrors every disk to the secondary; resolves when it has everything there is. */
  async protect(link: PeerLink): Promise<void> {
    const { dropped } = this;
    await this.ending;
    // Nobody would end its mirrors any more, and the guest's writes would wait for it for ever.
    if (dropped !== this.dropped)
      throw new ColoError(errorCodes.channel, 'the secondary was lost before its disks were mirrored');
    const sink = new DiskSink(
      { send: (type, ...parts) => link.send(type, ...parts), drain: () => link.drain() },
      { replicated: this.disks.map((disk) => disk.flush === 'replicated'), from: this.from },
    );
    this.sink = sink;
    this.copied = false;
    this.flushedBytes = 0;
    this.marked = undefined;
    const begun = this.begin(sink);
    // The next secondary waits for it, however it ends.
    this.ending = begun.then(
      () => undefined,
      () => undefined,
    );
    try {
      await this.untilCopied(await begun);
    } catch (error) {
      // The secondary is there, so it was the notes: the next copy is of everything.
      if (sink.failed === undefined && this.keptPosition !== undefined) this.forgetNotes();
      throw error;
    }
    this.copied = true;
    this.context.log.info({ skippedBytes: this.skippedBytes, position: this.keptPosition }, 'the disks are copied');
  }

  private async begin(sink: DiskSink): Promise<DiskMirrors> {
    const handlers: MirrorHandlers = {
      request: (disk, request, answer) => {
        sink.request(disk, request, answer);
        this.flushSometimes(sink);
      },
      failed: (why, cancelled) => this.onMirrorFailed(sink, why, cancelled),
    };
    const mirrors = await this.startMirrors(handlers);
    if (this.sink === sink) {
      this.mirrors = mirrors;
      return mirrors;
    }
    await mirrors.cancel();
    throw new ColoError(errorCodes.channel, 'the secondary was lost while the disks were prepared');
  }

  private async startMirrors(handlers: MirrorHandlers): Promise<DiskMirrors> {
    const { notes } = this.source;
    const { name } = this.notes;
    this.skippedBytes = 0;
    if (this.keptPosition !== undefined && name !== undefined) return notes.mirrorChanged(name, handlers);
    if (name === undefined) await this.beginNote(notes);
    return this.source.mirror(handlers);
  }

  /** Begins a note when one is due; without it the next copy is of everything, which is always right. */
  private async beginNote(notes: ChangeNotes): Promise<void> {
    const name = this.noting ? undefined : this.notes.wanted(this.writtenBytes);
    if (name === undefined) return;
    this.noting = true;
    try {
      await notes.begin(name);
      this.notes.begun(name, this.writtenBytes);
    } catch (error) {
      this.context.log.warn({ error: errorText(error) }, 'what changes on the disks is not noted');
    } finally {
      this.noting = false;
    }
  }

  private forgetNotes(): void {
    for (const name of this.notes.clear()) this.forget(name);
  }

  private forget(note: string): void {
    const warn = (error: unknown) => this.context.log.warn({ error: errorText(error) }, 'a note of changes stays');
    this.source.notes?.forget(note).catch(warn);
  }

  private get writtenBytes(): number {
    return this.writtenBefore + (this.sink?.counters.writtenBytes ?? 0);
  }

  /** The secondary has applied that checkpoint: a note of what changed before it is of no use any more. */
  applied(epoch: number): void {
    const { notes } = this.source;
    const { marked } = this;
    if (notes === undefined || marked?.epoch !== epoch) return;
    const gone = this.notes.applied(marked.position);
    if (gone !== undefined) this.forget(gone);
    void this.beginNote(notes);
  }

  /**
   * Before a capture, with the guest running: what is on its way to the secondary and to the image is brought there. A
   * stop flushes the image, and the commit waits for the secondary in any case; so neither is to be done in the pause.
   */
  async settle(): Promise<void> {
    const { sink } = this;
    if (sink === undefined) return;
    const { clock } = this.context;
    const end = clock.now() + settleMs;
    if (sink.counters.writtenBytes - this.flushedBytes >= settledBytes) this.flush(sink);
    while ((sink.backlogBytes >= settledBytes || this.flushing) && clock.now() < end) await delay(1, clock);
  }

  /** The guest stands still: all it has written belongs to `epoch`. Throws when the secondary lacks some of it. */
  mark(epoch: number): void {
    if (this.sink === undefined) throw new ColoError(errorCodes.checkpoint, 'the disks are not mirrored');
    const position = this.sink.mark(epoch);
    this.marked = { epoch, position };
    this.notes.marked(position);
  }

  /** `verify`: what the replicas must be. The guest stands still. */
  async sendHashes(epoch: number, link: PeerLink | undefined): Promise<void> {
    const hashes = await this.source.hashes();
    for (const [disk, hash] of hashes.entries())
      if (hash !== '') link?.send(diskMessages.hash, encodeHash({ epoch, disk, hash }));
  }

  /** That capture never happened. */
  abort(epoch: number, link: PeerLink | undefined): void {
    link?.send(diskMessages.abort, encodeAbort(epoch));
  }

  held(position: number): void {
    this.sink?.held(position);
  }

  /** A first checkpoint was committed: what went wrong before is over. */
  protectedNow(): void {
    this.problem = '';
    this.pauseMs = 0;
  }

  /** The secondary cannot go on, for a reason of its disk. */
  failed(why: string): void {
    this.problem = why;
    this.context.log.error({ why }, 'the disks cannot be protected');
    this.pauseMs = Math.min(diskPauseMsMax, Math.max(diskPauseMsFirst, this.pauseMs * 2));
    this.notBefore = this.context.clock.now() + this.pauseMs;
    this.lost(why);
  }

  /** This node is no longer the primary. */
  close(why: string): void {
    this.stopAsking?.();
    this.stopAsking = undefined;
    this.drop(why);
  }

  /** Nothing is forwarded any more, and nothing of the guest waits for it. */
  drop(why: string): void {
    const { sink, mirrors } = this;
    this.dropped += 1;
    this.sink = undefined;
    this.mirrors = undefined;
    this.copying = null;
    if (sink === undefined) return;
    this.newest = Math.max(this.newest, sink.newest);
    this.writtenBefore += sink.counters.writtenBytes;
    sink.fail(why);
    this.ending = Promise.all([this.ending, mirrors?.cancel()]).then(
      () => undefined,
      (error: unknown) => this.context.log.warn({ error: errorText(error) }, 'a mirror could not be ended'),
    );
  }

  private get disks() {
    return this.context.config.disks ?? [];
  }

  private onMirrorFailed(sink: DiskSink, why: string, cancelled: boolean): void {
    if (this.sink !== sink) return;
    sink.fail(why);
    const tell = () => {
      if (this.sink === sink) this.failed(`the mirror of the disks ended: ${why}`);
    };
    // A guest that switched itself off must not be brought back by a secondary: its end comes right behind this.
    if (cancelled) afterAwake(this.context.clock, jobEndingMs, tell);
    else tell();
  }

  private async untilCopied(mirrors: DiskMirrors): Promise<void> {
    let isOver = false;
    const show = () =>
      void mirrors
        .progress()
        .then((progress) => {
          // The answer to the last question may come when the copy is done.
          if (this.mirrors === mirrors && !isOver) this.copying = { ...progress, what: 'copy' };
        })
        .catch(() => undefined);
    const stop = this.context.clock.every(250, show);
    try {
      await mirrors.copied;
      if (this.keptPosition !== undefined) {
        const { totalBytes } = await mirrors.progress();
        this.skippedBytes = this.sizes.reduce((sum, size) => sum + size, 0) - totalBytes;
      }
    } finally {
      isOver = true;
      stop();
      this.copying = null;
    }
  }

  /** A stop flushes the images: what is written out before costs no pause. */
  private flushSometimes(sink: DiskSink): void {
    if (this.copied && sink.counters.writtenBytes - this.flushedBytes >= flushEveryBytes) this.flush(sink);
  }

  private flush(sink: DiskSink): void {
    if (this.flushing) return;
    this.flushing = true;
    this.flushedBytes = sink.counters.writtenBytes;
    this.source
      .flush()
      .catch((error: unknown) => this.context.log.warn({ error: errorText(error) }, 'a disk image cannot be flushed'))
      .finally(() => {
        this.flushing = false;
      });
  }
}
