// When a checkpoint is due that no difference asked for: gives Policy (controller/) the time and the count of dirty
// pages.

import { errorText } from '../../../base/errors.ts';
import { type DueReason, Policy } from '../../../controller/policy.ts';
import type { NodeContext } from '../../context.ts';
import { countDirtyMs } from '../../limits.ts';
import type { GuestVm } from '../../platform.ts';

export class CheckpointDue {
  private readonly context: NodeContext;
  private readonly vm: GuestVm;
  private policy: Policy;
  private countedAt = 0;

  constructor(context: NodeContext, vm: GuestVm) {
    this.context = context;
    this.vm = vm;
    this.policy = this.newPolicy();
  }

  /** There is no secondary any more: the next one begins with nothing due. */
  restart(): void {
    this.policy = this.newPolicy();
  }

  captured(): void {
    this.policy.captured(this.context.clock.now());
  }

  at(now: number): DueReason | undefined {
    return this.policy.due(now, this.dirtyPages(now));
  }

  private dirtyPages(now: number): number {
    if (now - this.countedAt < countDirtyMs) return 0;
    this.countedAt = now;
    try {
      return this.vm.tracker.count();
    } catch (error) {
      // QEMU has just died: its end is an event of its own.
      this.context.log.warn({ error: errorText(error) }, 'dirty pages cannot be counted');
      return 0;
    }
  }

  private newPolicy(): Policy {
    const { protect } = this.context.config;
    return new Policy(
      {
        mode: protect.mode === 'remus' ? 'remus' : 'colo',
        intervalMs: protect.interval,
        epochMaxMs: protect.epochMax,
        dirtyPagesMax: Math.floor(protect.dirtyMax / 4096),
      },
      this.context.clock.now(),
    );
  }
}
