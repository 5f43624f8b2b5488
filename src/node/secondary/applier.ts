// The secondary's half of a checkpoint: stage what arrives, and apply what is complete.
//
//   settle ─► stop ─► drop late output ─► roll back the SVM's own pages ─► write the primary's ─► align the clock
//     ─► load the devices ─► put right what loading touched ─► (verify) ─► replay the ingress ─► cont ─► is it well?
//
// In remus mode the SVM never runs: pages are written, the device state is kept, and loading waits for a takeover. But
// the first state is loaded, and one now and then (`protect.tryLoad`), so that a takeover does what has been seen to
// work.
//
// Clock (docs/decisions/0007-clock-alignment.md): the saved state is of a moment that is over when the SVM runs. Under
// KVM its clocks are started from that moment. Under TCG the state is moved forward by the time since then, measured
// from the marker's arrival and with the rest predicted from earlier loads (guest-clock.ts). So both guests read the
// same second, and a survivor reads the time of its host.

import { delay } from '../../base/clock.ts';
import type { DiskActivity } from '../../base/disk-activity.ts';
import { ColoError, errorCodes, errorText } from '../../base/errors.ts';
import { isWithin, PageRuns } from '../../base/page-runs.ts';
import { SecondaryRam } from '../../checkpoint/apply.ts';
import type { Applied, CaptureState } from '../../checkpoint/message.ts';
import { watchedSpill } from '../../checkpoint/spill.ts';
import { Staging } from '../../checkpoint/stage.ts';
import type { StagedCheckpoint } from '../../checkpoint/staged.ts';
import type { SecondaryProxy } from '../../proxy/secondary.ts';
import { alignClock, guestTime, tscTicksPerMs } from '../../qemu/device-state.ts';
import type { NodeContext } from '../context.ts';
import { clockLagMsMax, settleMs, spillWaitingBytesMax } from '../limits.ts';
import { finishSending, type GuestCard, type GuestVm, settle } from '../platform.ts';
import type { Troubles } from '../troubles.ts';
import { assertWell } from '../vm-watch.ts';
import type { SecondaryDisks } from './disks.ts';
import { GuestClock, RestartGuess } from './guest-clock.ts';
import { KeptDisks } from './kept-disks.ts';
import { readTemplate } from './template.ts';

const sliceBytes = 8 * 1024 * 1024;

export type StageOutcome = { kind: 'complete'; epoch: number } | { kind: 'refused'; epoch: number; why: string };

export interface ApplierParts {
  disks: SecondaryDisks | undefined;
  /** Hears what the disks are asked and answer. */
  activity: DiskActivity;
  /** What the proxy could not go on from. */
  wrongWith: (state: CaptureState) => string | undefined;
  /** Whether a state may be loaded to see that it can: not when this copy may be the last one. */
  mayTry: () => boolean;
}

export class Applier {
  readonly vm: GuestVm;
  readonly nic: GuestCard;
  /** The template that this VM was started with: it serves its own secondary later. */
  readonly template: Uint8Array;
  readonly disks: SecondaryDisks | undefined;
  /** A checkpoint was loaded here, and the machine was well after it: only then it is a copy that would go on. */
  hasLoaded = false;
  /** After a takeover of a VM with disks: how they become this node's. */
  kept: KeptDisks | undefined;
  private readonly context: NodeContext;
  private readonly staging: Staging;
  private readonly secondaryRam: SecondaryRam;
  private readonly runs: boolean;
  private readonly mayTry: () => boolean;
  private readonly markers = new Map<number, number>();
  private readonly guestClock = new GuestClock();
  private readonly restartGuess = new RestartGuess();
  /** remus: the device state of the newest checkpoint, and what must happen to make it run. */
  private pending: { state: StagedCheckpoint['state']; epoch: number; markedAt: number | undefined } | undefined;
  /** remus: pages that a load writes itself (the machine's reset puts ROM images back). */
  private loadTouches = new PageRuns();
  /** remus: when a state was last loaded. */
  private loadedAt = 0;
  /** What these pages are before the load of a takeover. */
  private touched: Buffer | undefined;

  private constructor(
    context: NodeContext,
    parts: { vm: GuestVm; nic: GuestCard; template: Uint8Array } & ApplierParts,
  ) {
    this.context = context;
    this.vm = parts.vm;
    this.nic = parts.nic;
    this.template = parts.template;
    this.disks = parts.disks;
    this.mayTry = parts.mayTry;
    this.runs = context.config.protect.mode === 'colo';
    const { ram } = parts.vm;
    // Without an SVM that runs nothing has to be rolled back, so one copy of the RAM is enough.
    this.secondaryRam = new SecondaryRam(ram, this.runs ? Buffer.alloc(ram.length) : ram);
    this.staging = new Staging({
      ramBytes: ram.length,
      shadow: this.secondaryRam.shadow,
      compressor: context.platform.compressor(),
      wrongWith: parts.wrongWith,
      openSpill: () => watchedSpill(context.platform.openSpill(), context.config.spillDir, parts.activity),
    });
  }

  /** Starts the SVM, paused, from the primary's template message. */
  static async open(context: NodeContext, payload: Uint8Array, parts: ApplierParts): Promise<Applier> {
    const template = readTemplate(context, payload);
    const nic = await context.platform.listenCard();
    try {
      const overlays = parts.disks?.count ?? 0;
      const vm = await context.platform.startVm({ vmstateTemplate: template, overlays });
      return new Applier(context, { vm, nic, template, ...parts });
    } catch (error) {
      await nic.close();
      throw error;
    }
  }

  /** A message of the bulk link. Pages of the initial rounds are written at once: nothing runs here yet. */
  stage(type: number, payload: Uint8Array): StageOutcome | undefined {
    const result = this.staging.receive(type, payload);
    switch (result.kind) {
      case 'batch':
        this.secondaryRam.writeBatch(result.runs, result.contents);
        return undefined;
      case 'complete':
        return { kind: 'complete', epoch: result.checkpoint.epoch };
      case 'refused':
        return { kind: 'refused', epoch: result.epoch, why: result.error.message };
      default:
        return undefined;
    }
  }

  /** The primary captured at about this moment: the SVM's clock will be aligned to it. */
  marked(epoch: number, now: number): void {
    this.markers.clear();
    this.markers.set(epoch, now);
  }

  /** Resolves when the staged checkpoint may be committed; rejects when it does not fit here. */
  settled(epoch: number): Promise<void> | undefined {
    return this.staging.settled(epoch);
  }

  /** Resolves when the disk has caught up with what is received; undefined while it is not far behind. */
  catchUp(): Promise<void> | undefined {
    return this.staging.spillWaitingBytes > spillWaitingBytesMax ? this.staging.spillCaughtUp() : undefined;
  }

  /** Applies the staged checkpoint; the SVM runs from it when this resolves (remus: could run). */
  async apply(epoch: number, proxy: SecondaryProxy): Promise<Applied> {
    const staged = this.staging.complete();
    if (staged?.epoch !== epoch) throw new ColoError(errorCodes.checkpoint, `checkpoint ${epoch} is not staged`);
    const applied = this.runs ? await this.applyRunning(staged, proxy) : await this.applyStanding(staged, proxy);
    this.hasLoaded = true;
    this.staging.release(epoch);
    return applied;
  }

  /**
   * remus: loads what was kept and starts the VM; colo: it runs already. The disks become this node's: what the primary
   * wrote behind the newest checkpoint never happened, what the SVM wrote itself is the truth from `term` on. When this
   * fails it may be tried again.
   */
  async makeRunnable(term: number, troubles: Troubles): Promise<void> {
    const pending = this.pending;
    const standing = !this.runs && pending !== undefined;
    if (standing) {
      // A load that fails may have written some of them.
      if (this.touched === undefined) this.touched = this.copyOf(this.loadTouches);
      else this.restore(this.loadTouches, this.touched);
      // A copy: when the load fails and is tried again, the clock is moved from where it was.
      const deviceState = Uint8Array.from(pending.state.deviceState);
      this.align({ ...pending, state: { ...pending.state, deviceState } }, this.context.clock.now());
      await this.vm.load(deviceState);
      this.restore(this.loadTouches, this.touched);
    }
    if (this.disks !== undefined) {
      this.kept ??= new KeptDisks(this.context, { vm: this.vm, labelled: this.disks.takeOver(term), troubles });
      await this.kept.settled();
    }
    if (standing) await this.vm.resume();
    await this.wake();
  }

  /**
   * It is the only copy now. One that waits (its own host's disk was full) is let try again; what else is wrong with it
   * is told, since a machine that serves badly is better than none.
   */
  private async wake(): Promise<void> {
    try {
      const { runState } = await this.vm.condition();
      if (runState !== 'running') await this.vm.resume();
      await assertWell(this.vm, 'runs');
    } catch (error) {
      this.context.log.error({ error: errorText(error) }, 'the machine that was taken over is not well');
    }
  }

  async close(): Promise<void> {
    await this.vm.kill();
    this.staging.close();
    await this.nic.close();
    await this.disks?.close();
  }

  private async applyRunning(staged: StagedCheckpoint, proxy: SecondaryProxy): Promise<Applied> {
    const { context, vm, nic, secondaryRam } = this;
    const { clock } = context;
    const times = [clock.now()];
    const lap = () => times.push(clock.now());
    await settle(nic, settleMs, context);
    await vm.stop();
    this.guestClock.stopped(clock.now());
    proxy.suspend();
    await finishSending(nic, () => vm.ping());
    lap();
    context.platform.reached('apply.stopped', staged.epoch);
    const ownPages = secondaryRam.rollback(vm.tracker.collect());
    lap();
    await this.disks?.apply(staged.epoch);
    await secondaryRam.write(staged, () => context.platform.turn());
    lap();
    context.platform.reached('apply.written', staged.epoch);
    const loadStart = clock.now();
    const { epoch, state } = staged;
    const plannedMs = this.align({ epoch, state, markedAt: this.markers.get(epoch) }, loadStart);
    await vm.load(staged.state.deviceState);
    lap();
    context.platform.reached('apply.loaded', staged.epoch);
    secondaryRam.restoreAfterLoad(vm.tracker.collect());
    const verified = await this.verify(staged.epoch, staged.state.ramHash);
    lap();
    const readyMs = clock.now() - loadStart;
    if (plannedMs !== undefined) await delay(this.restartGuess.waitMs(plannedMs, readyMs), clock);
    proxy.resume(staged.epoch, staged.state.table, staged.state.held, clock.now());
    nic.flush();
    const restartAt = clock.now();
    this.guestClock.starting(clockMsOf(staged.state.deviceState) ?? 0, restartAt);
    await vm.resume();
    lap();
    this.restartGuess.took(readyMs, clock.now() - restartAt);
    // Once before it counts as a copy; later loads are looked at beside the way (SecondaryNode.lookAt).
    if (!this.hasLoaded) await assertWell(vm, 'runs');
    const phase = (index: number) => (times[index + 1] ?? 0) - (times[index] ?? 0);
    return {
      epoch: staged.epoch,
      ok: verified !== false,
      verified,
      ownPages,
      phases: {
        stopMs: phase(0),
        rollbackMs: phase(1),
        writeMs: phase(2),
        loadMs: phase(3),
        fixMs: phase(4),
        resumeMs: phase(5),
      },
    };
  }

  private async applyStanding(staged: StagedCheckpoint, proxy: SecondaryProxy): Promise<Applied> {
    const { clock } = this.context;
    const start = clock.now();
    await this.disks?.apply(staged.epoch);
    await this.secondaryRam.write(staged, () => this.context.platform.turn());
    const writeMs = clock.now() - start;
    const verified = await this.verify(staged.epoch, staged.state.ramHash);
    const { state } = staged;
    await this.tryLoad(state.deviceState);
    this.pending = { state: { ...state }, epoch: staged.epoch, markedAt: this.markers.get(staged.epoch) };
    proxy.suspend();
    proxy.resume(staged.epoch, state.table, state.held, clock.now());
    const phases = { stopMs: 0, rollbackMs: 0, writeMs, loadMs: 0, fixMs: clock.now() - start - writeMs, resumeMs: 0 };
    return { epoch: staged.epoch, ok: verified !== false, verified, ownPages: 0, phases };
  }

  /** remus keeps no second copy of the RAM to repair it from after a load; so one load shows which pages it writes. */
  private async learnLoadTouches(deviceState: Uint8Array): Promise<void> {
    const { ram } = this.vm;
    const whole = Buffer.allocUnsafeSlow(ram.length);
    await copyInSlices(ram, whole, () => this.context.platform.turn());
    this.vm.tracker.collect();
    await this.vm.load(deviceState);
    await assertWell(this.vm, 'stands');
    this.loadTouches = this.vm.tracker.collect();
    this.loadTouches.forEach((start, end) => void whole.copy(ram, start, start, end));
  }

  /**
   * Loads a state although nothing runs from it. Pages that a load writes are put back: those that the first one wrote.
   * Were there others, what they held would be gone, here and at a takeover: then this copy is none.
   */
  private async tryLoad(deviceState: Uint8Array): Promise<void> {
    const { clock, config } = this.context;
    const isFirst = this.pending === undefined;
    if (!isFirst && (!this.mayTry() || clock.now() - this.loadedAt < config.protect.tryLoad)) return;
    if (isFirst) await this.learnLoadTouches(deviceState);
    else {
      const kept = this.copyOf(this.loadTouches);
      this.vm.tracker.collect();
      await this.vm.load(deviceState);
      await assertWell(this.vm, 'stands');
      const touched = this.vm.tracker.collect();
      this.restore(this.loadTouches, kept);
      if (!isWithin(touched, this.loadTouches))
        throw new ColoError(
          errorCodes.checkpoint,
          'a load wrote pages of the guest that the first one had not written',
        );
    }
    this.loadedAt = clock.now();
  }

  private copyOf(runs: PageRuns): Buffer {
    const pages: Buffer[] = [];
    runs.forEach((start, end) => pages.push(this.vm.ram.subarray(start, end)));
    return Buffer.concat(pages);
  }

  private restore(runs: PageRuns, contents: Buffer): void {
    let at = 0;
    runs.forEach((start, end) => {
      at += contents.copy(this.vm.ram, start, at, at + end - start);
    });
  }

  /**
   * Has the clocks go on from the moment of the state: exactly, or by moving them in it to where they will be. Returns
   * in how many milliseconds they are right then, where it matters when the machine is started.
   */
  private align(
    { epoch, state, markedAt }: { epoch: number; state: StagedCheckpoint['state']; markedAt: number | undefined },
    now: number,
  ): number | undefined {
    const { log } = this.context;
    // `standsMs` is the peer's word: what it makes of the moment has to be believable.
    const moment = (markedAt ?? Number.NaN) + state.standsMs;
    const believable = now - moment < clockLagMsMax && now - moment > -clockLagMsMax;
    if (this.vm.startClocksFrom?.(believable ? Math.min(now, moment) : undefined) === true) {
      log.debug({ epoch, lagMs: now - moment, aligned: believable ? 'exactly' : 'no' }, 'clock aligned');
      return undefined;
    }
    const clockMs = clockMsOf(state.deviceState);
    const ticksPerMs = tscTicksPerMs(state.deviceState);
    if (clockMs === undefined || ticksPerMs === undefined) {
      log.debug({ epoch, aligned: 'no' }, 'clock aligned');
      return undefined;
    }
    // Also without a marker: never behind what this machine has shown.
    const restartMs = this.restartGuess.ms;
    const plan = this.guestClock.plan(clockMs, believable ? now + restartMs - moment : 0);
    const moved = alignClock(state.deviceState, plan.lagMs, ticksPerMs);
    log.debug({ epoch, ...plan, aligned: moved && believable ? 'by prediction' : 'no' }, 'clock aligned');
    return moved && believable ? restartMs + plan.aheadMs : undefined;
  }

  private async verify(epoch: number, expected: string): Promise<boolean | null> {
    if (!this.context.config.protect.verify) return null;
    const { platform } = this.context;
    const { equalToShadow, equalToPrimary } = await this.secondaryRam.verify(
      expected,
      (ram) => platform.hashRam(ram),
      () => platform.turn(),
    );
    const disksEqual = await this.disks?.verify(epoch);
    if (disksEqual === false) this.context.log.error({ epoch }, "the replica is not the primary's disk");
    return equalToShadow && equalToPrimary !== false && disksEqual !== false;
  }
}

/** The guest's clock in a saved state. */
function clockMsOf(deviceState: Uint8Array): number | undefined {
  const time = guestTime(deviceState);
  return time === undefined ? undefined : Number(time.clockNs) / 1e6;
}

/** Copies all of `from`; the event loop gets a turn after every slice, so that beats are echoed. */
async function copyInSlices(from: Buffer, to: Buffer, turn: () => Promise<void>): Promise<void> {
  for (let at = 0; at < from.length; at += sliceBytes) {
    from.copy(to, at, at, Math.min(from.length, at + sliceBytes));
    await turn();
  }
}
