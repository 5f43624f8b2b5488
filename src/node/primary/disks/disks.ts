// The disks of a primary's VM over all its secondaries: their own trouble, the fold after a takeover, the notes of what
// changes, and how long to wait after a failure. What belongs to one secondary is its mirror (disk-mirror.ts).
//
//    takeover ─► fold the overlays ─► a secondary is found ─► its mirror ─► its end ─► the next one, with the notes
//
// After a failure the next try waits a while, longer each time, since it would copy the whole disk again only to fail
// again.

import { errorText } from '../../../base/errors.ts';
import type { Progress } from '../../../qemu/mirror.ts';
import type { NodeContext } from '../../context.ts';
import { diskPauseMsFirst, diskPauseMsMax, diskRetryMs } from '../../limits.ts';
import type { DiskSource, PeerLink } from '../../platform.ts';
import { DiskMirror, type MirrorHome } from './disk-mirror.ts';
import { DiskNotes } from './disk-notes.ts';

export interface DisksStatus {
  /** The initial copy, or the fold after a takeover, while it is under way. */
  copying: (Progress & { what: 'copy' | 'fold' }) | null;
  /** Written and not yet held by the secondary. */
  backlogBytes: number;
  writtenBytes: number;
  /** How much of the disks was not copied to the secondary of now, because it had it from before. */
  skippedBytes: number;
  /** What last ended the protection of the disks, '' if nothing did. */
  problem: string;
}

type DisksContext = Pick<NodeContext, 'clock' | 'log'> & { config: Pick<NodeContext['config'], 'disks'> };

export class PrimaryDisks implements MirrorHome {
  readonly source: DiskSource;
  readonly notes: DiskNotes;
  readonly durable: readonly boolean[];
  folded: Promise<void> = Promise.resolve();
  earlierEnded: Promise<void> = Promise.resolve();
  isFlushing = false;
  private readonly context: DisksContext;
  private readonly lost: (why: string) => void;
  /** The mirror to the secondary of now. */
  private mirror: DiskMirror | undefined;
  private folding: Progress | null = null;
  private problem = '';
  /** What is wrong with the guest's own disk; '' while nothing is. */
  private trouble = '';
  private stopAsking: (() => void) | undefined;
  private pauseMs = 0;
  private notBefore = 0;
  /** Written by the guest to earlier secondaries. */
  private writtenBefore = 0;
  /** The newest position of earlier sessions. */
  private newest = 0;

  /** `lost` ends the protection. */
  constructor(context: DisksContext, source: DiskSource, lost: (why: string) => void) {
    this.context = context;
    this.source = source;
    this.lost = lost;
    this.durable = (context.config.disks ?? []).map(({ flush }) => flush === 'replicated');
    const writtenBytes = () => this.writtenBefore + (this.mirror?.writtenBytes ?? 0);
    this.notes = new DiskNotes({ source: source.notes, log: context.log, writtenBytes });
    source.watch((trouble) => this.onTrouble(trouble));
    // A survivor's may have run into it before: nobody tells of that again.
    this.keepAsking();
  }

  get status(): DisksStatus {
    const { mirror, folding, problem } = this;
    const copied = mirror?.copying ?? null;
    return {
      copying: copied !== null ? { ...copied, what: 'copy' } : folding !== null ? { ...folding, what: 'fold' } : null,
      backlogBytes: mirror?.backlogBytes ?? 0,
      writtenBytes: mirror?.writtenBytes ?? 0,
      skippedBytes: mirror?.skippedBytes ?? 0,
      problem: [this.trouble, problem].filter((text) => text !== '').join('; '),
    };
  }

  /** How long no secondary is sought yet. */
  waitMs(now: number): number {
    return Math.max(0, this.notBefore - now);
  }

  /** A secondary is sought at once: its operator may have made room. */
  hurry(): void {
    this.notBefore = 0;
  }

  /** For a new secondary, over its bulk link; the mirror to the one before has ended. */
  mirrorTo(link: PeerLink): DiskMirror {
    this.mirror = new DiskMirror(this.context, this, link);
    return this.mirror;
  }

  /** After a takeover: the overlays become part of the images while the guest runs. */
  fold(): void {
    const { log } = this.context;
    this.folded = this.source
      .fold((progress) => {
        this.folding = progress;
      })
      .then(() => log.info('the overlays are folded into the disks'))
      // The overlay stays the guest's disk: nothing is lost, only a file more.
      .catch((error: unknown) => log.warn({ error: errorText(error) }, 'an overlay could not be folded into its disk'))
      .finally(() => {
        this.folding = null;
      });
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
  close(): void {
    this.stopAsking?.();
    this.stopAsking = undefined;
  }

  // ---- for the mirror of now ----

  newSession(): number {
    // One further, so that no two marks of one position can be of different disks.
    this.newest += 1;
    return this.newest;
  }

  nextWaitsFor(work: Promise<unknown>): void {
    this.earlierEnded = Promise.all([this.earlierEnded, work]).then(
      () => undefined,
      (error: unknown) => this.context.log.warn({ error: errorText(error) }, 'a mirror could not be ended'),
    );
  }

  flush(): void {
    this.isFlushing = true;
    this.source
      .flush()
      .catch((error: unknown) => this.context.log.warn({ error: errorText(error) }, 'a disk image cannot be flushed'))
      .finally(() => {
        this.isFlushing = false;
      });
  }

  ended(mirror: DiskMirror): void {
    this.newest = Math.max(this.newest, mirror.newest);
    this.writtenBefore += mirror.writtenBytes;
    if (this.mirror === mirror) this.mirror = undefined;
  }

  // ---- the guest's own disk ----

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
      if ((await this.source.waits(this.mirror?.isForwarding !== true)) === true) return;
    } catch (error) {
      this.context.log.debug({ error: errorText(error) }, 'whether the guest waits is not known');
    }
    this.stopAsking?.();
    this.stopAsking = undefined;
    this.trouble = '';
  }
}
