// The disks of a survivor become its own: the replica is labelled as the newest truth, then its overlays are kept (the
// guest's flushes reach the disk again), and only then may they be folded. None of it may keep the guest from going on,
// which is in memory and complete: a disk that hangs is waited for as long as `takeoverDiskMs`, one that fails is asked
// again.
//
//   label ─┬─ stands ──► keep overlays ─► done: may be folded
//          ├─ refused ─► keep overlays, never fold: the replica must stay the epoch that its label says
//          └─ hangs ───► the guest runs; when the label is there after all, as above

import { delay } from '../../base/clock.ts';
import { errorText } from '../../base/errors.ts';
import type { NodeContext } from '../context.ts';
import { keepRetryMs, takeoverDiskMs } from '../limits.ts';
import type { GuestVm } from '../platform.ts';
import type { Troubles } from '../troubles.ts';

type KeptVm = Pick<GuestVm, 'keepDisks' | 'exited'>;

export class KeptDisks {
  /** Resolves with whether the overlays may be folded; never while the disk hangs. */
  readonly mayFold: Promise<boolean>;
  private readonly context: Pick<NodeContext, 'clock'>;
  private readonly vm: KeptVm;
  private readonly troubles: Troubles;
  /** The disk has said whether it can be labelled. */
  private isAnswered = false;
  /** QEMU was asked to keep the overlays. */
  private readonly tried = Promise.withResolvers<void>();

  /** `labelled`: the replica's label is being written, and says whether it could be. */
  constructor(
    context: Pick<NodeContext, 'clock'>,
    parts: { vm: KeptVm; labelled: Promise<boolean>; troubles: Troubles },
  ) {
    this.context = context;
    this.vm = parts.vm;
    this.troubles = parts.troubles;
    this.mayFold = this.keep(parts.labelled);
  }

  /** Resolves when all has been tried, or the disk has taken as long as the guest may wait for it. */
  async settled(): Promise<void> {
    const late = Promise.withResolvers<void>();
    const cancel = this.context.clock.after(takeoverDiskMs, late.resolve);
    await Promise.race([this.tried.promise, late.promise]);
    cancel();
    const why = 'the disk of this node does not answer: the VM runs, and its disks are not safe';
    if (!this.isAnswered) this.troubles.tell('label', why);
  }

  private async keep(labelled: Promise<boolean>): Promise<boolean> {
    const isLabelled = await labelled.catch(() => false);
    this.isAnswered = true;
    this.troubles.over('label');
    if (!isLabelled) this.troubles.tell('label', 'the replica cannot be labelled as the newest disks of the VM');
    await this.keepOverlays();
    return isLabelled;
  }

  private async keepOverlays(): Promise<void> {
    let isGone = false;
    void this.vm.exited.then(() => (isGone = true));
    while (!isGone)
      try {
        await this.vm.keepDisks?.();
        this.troubles.over('overlay');
        return this.tried.resolve();
      } catch (error) {
        this.tried.resolve();
        this.troubles.tell('overlay', `what the guest flushes does not reach its disk: ${errorText(error)}`);
        await delay(keepRetryMs, this.context.clock);
      }
  }
}
