// One capture of the primary's machine, with the order of things around its stop:
//
//   hold ingress ─► QEMU has all of it ─► stop ─┬─► drain the card, proxy.capture, marker ─┬─► cont ─► let ingress go
//                                               └────────── devices, dirty pages ──────────┘
//
// So everything the guest sent before it stopped belongs to the closing epoch, and everything mirrored behind the
// marker came after the capture: the secondary replays exactly that. Where the system cannot say what QEMU has taken,
// the last moments of ingress are repeated instead; a duplicate frame is harmless, as on any network.
//
// There is one machine, so captures take turns over all secondaries: one that was begun for a secondary which is gone
// may still stop and resume the guest.

import { ColoError, errorCodes } from '../../../base/errors.ts';
import type { PrimaryProxy } from '../../../proxy/primary.ts';
import type { Capture } from '../../../qemu/vm.ts';
import type { NodeContext } from '../../context.ts';
import { settleMs } from '../../limits.ts';
import { type GuestCard, type GuestVm, settle } from '../../platform.ts';
import type { Ingress } from '../ingress.ts';

/** What the proxy closed at a capture. */
export interface Closing {
  epoch: number;
  table: Uint8Array;
  held: Uint8Array;
}

/** A capture, and the line that it drew in the guest's output. */
export interface Captured extends Closing {
  capture: Capture;
  capturedAt: number;
  /** From the line until the guest's clocks went on: behind it, or before it where they did not stand still. */
  standsMs: number;
  /** `verify`: of the RAM; '' without. */
  hash: string;
  /** How many frames waited at the line. */
  heldFrames: number;
}

/** For whom a machine is captured: the checkpointer of a pairing. */
export interface CaptureTarget {
  /** Its secondary is gone. */
  readonly isOver: boolean;
  /** The line is drawn, the guest stands still: what is sent from here on is behind it. Throws when it cannot be. */
  drawn(epoch: number, at: number): void;
  /** A frame that the guest may or may not have had before the line. */
  repeat(frame: Uint8Array): void;
  /** `verify`: the guest stands still. */
  sendHashes(epoch: number): Promise<void>;
  /** Captured, and the secondary is still there; the guest runs. */
  taken(captured: Captured): void;
  /** The line was drawn, and the capture failed. */
  undrawn(epoch: number): void;
}

export interface CapturesParts {
  context: Pick<NodeContext, 'clock' | 'platform'> & { config: Pick<NodeContext['config'], 'protect'> };
  vm: Pick<GuestVm, 'capture' | 'tracker' | 'ram'>;
  nic: GuestCard;
  ingress: Pick<Ingress, 'hold' | 'lastMoments'>;
  /** What waited for a capture goes on its way. */
  releaseIngress: () => void;
  proxy: { readonly counters: Pick<PrimaryProxy['counters'], 'heldFrames'>; capture(now: number): Closing };
}

export class Captures {
  private readonly parts: CapturesParts;
  /** Resolves when no capture is under way. */
  private last: Promise<void> = Promise.resolve();

  constructor(parts: CapturesParts) {
    this.parts = parts;
  }

  /**
   * Does `work`, which captures, when the captures before it are over. The ingress goes on behind it, however it ends.
   */
  async inTurn(work: () => Promise<void>): Promise<void> {
    const before = this.last;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.last = promise;
    try {
      await before;
      await work();
    } finally {
      this.parts.releaseIngress();
      resolve();
    }
  }

  /** Stops the guest, draws the line and captures; the guest runs again when this returns or throws. */
  async take(target: CaptureTarget): Promise<void> {
    const line = new Line(this.parts, target);
    try {
      const capture = await this.parts.vm.capture({
        beforeStop: () => line.beforeStop(),
        onStopped: () => line.draw(),
        isQuiet: () => line.isQuiet(),
        beforeResume: () => line.hash(),
      });
      target.taken(line.end(capture));
    } catch (error) {
      // What was captured for a secondary that is gone has been undone with it (PrimaryProxy.goAlone).
      if (line.closing !== undefined && !target.isOver) target.undrawn(line.closing.epoch);
      throw error;
    }
  }
}

/** The steps of one capture, in their order. */
class Line {
  closing: Closing | undefined;
  private readonly parts: CapturesParts;
  private readonly target: CaptureTarget;
  /** QEMU had taken all ingress before it stopped. */
  private isSettled = false;
  private stoppedAt = 0;
  private heldFrames = 0;
  private bytesSeen = -1;
  private ramHash = '';

  constructor(parts: CapturesParts, target: CaptureTarget) {
    this.parts = parts;
    this.target = target;
  }

  async beforeStop(): Promise<void> {
    const { ingress, nic, context } = this.parts;
    ingress.hold();
    this.isSettled = await settle(nic, settleMs, context);
  }

  draw(): void {
    const { context, proxy, ingress } = this.parts;
    this.stoppedAt = context.clock.now();
    // The secondary is gone: no line may be drawn that nobody would ever commit.
    if (this.target.isOver) return;
    this.heldFrames = proxy.counters.heldFrames;
    this.closing = proxy.capture(this.stoppedAt);
    this.target.drawn(this.closing.epoch, this.stoppedAt);
    if (!this.isSettled) for (const frame of ingress.lastMoments(this.stoppedAt)) this.target.repeat(frame);
    context.platform.reached('capture.stopped', this.closing.epoch);
  }

  isQuiet(): boolean {
    const { nic } = this.parts;
    nic.drain();
    const isQuiet = nic.bytesIn === this.bytesSeen;
    this.bytesSeen = nic.bytesIn;
    return isQuiet;
  }

  async hash(): Promise<void> {
    const { context, vm } = this.parts;
    if (!context.config.protect.verify) return;
    this.ramHash = context.platform.hashRam(vm.ram);
    if (this.closing !== undefined) await this.target.sendHashes(this.closing.epoch);
  }

  end(capture: Capture): Captured {
    const { context, vm } = this.parts;
    const { closing, stoppedAt, heldFrames, ramHash } = this;
    // Where the clocks run on during the pause, those of the state are of a moment before the line.
    const standsMs = (capture.clocksOf ?? context.clock.now()) - stoppedAt;
    if (closing !== undefined && !this.target.isOver)
      return { ...closing, capture, capturedAt: stoppedAt, standsMs, hash: ramHash, heldFrames };
    vm.tracker.putBack(capture.runs);
    capture.release();
    throw new ColoError(errorCodes.channel, 'the secondary was lost during the capture');
  }
}
