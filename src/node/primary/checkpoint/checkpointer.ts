// What one secondary has of the primary's machine, and how it gets the rest: its session, the rounds of the first copy,
// then checkpoints. Made with the links of a pairing, and over with them: a new secondary has nothing.
//
//   session ─► round 0, 1 ... ─► capture ─► send ─► committed ─► applied
//                                  ▲          └─► refused ─► abort: the capture never happened
//                                  └── again, as PrimaryPair decides
//
// The order of things around the guest's stop is in capture.ts.

import { ColoError, errorCodes } from '../../../base/errors.ts';
import type { PageRuns } from '../../../base/page-runs.ts';
import type { Compressor } from '../../../checkpoint/compress.ts';
import type { DeltaBase } from '../../../checkpoint/delta.ts';
import { CheckpointEncoder, encodeTemplate } from '../../../checkpoint/encode.ts';
import { deltaBaseBytesMax } from '../../../checkpoint/limits.ts';
import { parseApplied } from '../../../checkpoint/message.ts';
import type { CheckpointRecord, Records } from '../../../checkpoint/record.ts';
import type { PrimaryEvent, Reason } from '../../../controller/primary-pair.ts';
import type { PrimaryProxy } from '../../../proxy/primary.ts';
import type { Capture } from '../../../qemu/vm.ts';
import type { NodeContext } from '../../context.ts';
import { encodeMachine, madeTraits, toldTraits, traitsType } from '../../pairing/alike.ts';
import type { PairLinks } from '../../pairing/links.ts';
import { machineHash } from '../../pairing/machine-hash.ts';
import { encodeCount, encodeMarker, messages } from '../../pairing/message.ts';
import type { GuestVm } from '../../platform.ts';
import type { DiskMirror } from '../disks/disk-mirror.ts';
import type { Captured, Captures, CaptureTarget } from './capture.ts';

interface InFlight {
  captured: Captured;
  record: CheckpointRecord;
}

export interface CheckpointerParts {
  context: Pick<NodeContext, 'clock' | 'config' | 'log' | 'platform'>;
  vm: GuestVm;
  links: Pick<PairLinks, 'isOver' | 'bulk' | 'say'>;
  /** Where the VM has disks. */
  mirror: DiskMirror | undefined;
  captures: Pick<Captures, 'inTurn' | 'take'>;
  compressor: Compressor;
  proxy: Pick<PrimaryProxy, 'currentEpoch' | 'abort'>;
  records: Records;
  post: (event: PrimaryEvent) => void;
}

export class Checkpointer {
  /** The secondary has loaded a checkpoint, and its machine was well after it. */
  hasLoaded = false;
  private readonly parts: CheckpointerParts;
  private inFlight: InFlight | undefined;
  private rounds = 0;
  /** The epoch of the newest checkpoint that the secondary holds complete. */
  private base = 0;
  /** Its pages, to which the next one's are compared; undefined when there were too many of them. */
  private known: Capture | undefined;

  constructor(parts: CheckpointerParts) {
    this.parts = parts;
  }

  /** Tells the secondary what machine to start. `template`: of the VM's device state. */
  async sendSession(template: Uint8Array): Promise<void> {
    const { context, vm, mirror, compressor } = this.parts;
    const { config } = context;
    const machine = { node: config.node, told: toldTraits(config), made: madeTraits(vm) };
    await this.send({ type: traitsType, parts: [encodeMachine(machine)] });
    await mirror?.announce();
    await this.send(await encodeTemplate(template, { specHash: machineHash(config), compressor }));
  }

  /** Sends every page written since the round before (the first: every page) while the guest runs. */
  async sendRound(round: number): Promise<void> {
    const { vm, mirror, proxy, context, links, post } = this.parts;
    this.assertOpen();
    // First the disks, then the RAM: copying a disk takes long, and the guest writes its RAM meanwhile.
    if (round === 0) await mirror?.protect();
    const runs = await this.pagesOfRound(round);
    const epoch = proxy.currentEpoch + 1;
    const encoder = this.newEncoder(epoch, round, 'round');
    try {
      for await (const message of encoder.round(runs, vm.tracker.copy ?? vm.ram)) await this.send(message);
    } catch (error) {
      vm.tracker.putBack(runs);
      throw error;
    }
    if (links.isOver) return;
    this.rounds = round + 1;
    context.platform.reached('round.sent', epoch);
    context.log.debug({ round, pages: runs.pages, sent: encoder.totals.sentBytes }, 'round');
    post({ kind: 'roundSent', dirtyPages: vm.tracker.count() });
  }

  /** Captures; the guest runs again when this returns or throws. */
  async capture(reason: Reason): Promise<void> {
    await this.parts.captures.inTurn(() => this.captureNow(reason));
  }

  /** Sends what was captured; resolves when everything has been given to the link. */
  async sendCheckpoint(): Promise<void> {
    if (this.inFlight === undefined) return;
    const { platform } = this.parts.context;
    const { captured, record } = this.inFlight;
    const { epoch, capture, table, held, standsMs, hash } = captured;
    const encoder = this.newEncoder(epoch, this.rounds, 'checkpoint');
    platform.reached('send.begun', epoch);
    const state = { deviceState: capture.deviceState, table, held, standsMs, ramHash: hash };
    const pages = { runs: capture.runs, contents: capture.pages, state };
    let messageCount = 0;
    for await (const message of encoder.checkpoint(pages, this.knownPages())) {
      await this.send(message);
      messageCount += 1;
      if (messageCount === 2) platform.reached('send.half', epoch);
    }
    record.sentBytes = encoder.totals.sentBytes;
    platform.reached('send.done', epoch);
  }

  /** The secondary holds it, complete. False: it is none that was sent to it. */
  committed(epoch: number, now: number): boolean {
    const { inFlight } = this;
    if (inFlight?.captured.epoch !== epoch) return false;
    this.base = epoch;
    inFlight.record.commitMs = now - inFlight.captured.capturedAt;
    this.know(inFlight.captured.capture);
    this.parts.records.add(inFlight.record);
    this.parts.context.log.debug(inFlight.record, 'checkpoint');
    return true;
  }

  /** The secondary runs from it; returns the epoch that it says so of. */
  applied(payload: Uint8Array): number {
    const applied = parseApplied(payload);
    if (applied instanceof ColoError) throw applied;
    this.hasLoaded ||= applied.ok;
    if (this.inFlight?.captured.epoch === applied.epoch) {
      this.parts.records.applied(applied);
      this.parts.mirror?.applied(applied.epoch);
      this.inFlight = undefined;
    }
    return applied.epoch;
  }

  /** The secondary refused it: the capture never happened. */
  abort(epoch: number, now: number): void {
    const { inFlight } = this;
    if (inFlight?.captured.epoch !== epoch) return;
    this.parts.vm.tracker.putBack(inFlight.captured.capture.runs);
    inFlight.captured.capture.release();
    this.undo(epoch, now);
  }

  /**
   * The secondary is gone: what was captured is dropped. Its pages are not marked dirty again: a new one gets a full
   * copy.
   */
  end(): void {
    // One that was committed is what `known` holds.
    if (this.inFlight?.captured.capture !== this.known) this.inFlight?.captured.capture.release();
    this.inFlight = undefined;
    this.forget();
  }

  private async pagesOfRound(round: number): Promise<PageRuns> {
    const { vm } = this.parts;
    const runs = vm.tracker.mustStand ? await collectStanding(vm) : vm.tracker.collect();
    if (round > 0) return runs;
    // A secondary that has nothing needs every page, whatever was collected for one before it.
    runs.clear();
    runs.add(0, vm.ram.length);
    return runs;
  }

  private async captureNow(reason: Reason): Promise<void> {
    const { captures, mirror } = this.parts;
    this.assertOpen();
    await mirror?.settle();
    await captures.take(this.target(reason));
  }

  private target(reason: Reason): CaptureTarget {
    const { links, mirror, context } = this.parts;
    return {
      get isOver() {
        return links.isOver;
      },
      drawn: (epoch, at) => {
        mirror?.mark(epoch);
        links.say(messages.marker, encodeMarker({ epoch, at }));
      },
      repeat: (frame) => links.say(messages.replay, frame),
      sendHashes: async (epoch) => mirror?.sendHashes(epoch),
      taken: (captured) => this.taken(captured, reason),
      undrawn: (epoch) => this.undo(epoch, context.clock.now()),
    };
  }

  private taken(captured: Captured, reason: Reason): void {
    const { context, post } = this.parts;
    this.inFlight = { captured, record: recordOf(captured, reason) };
    context.platform.reached('capture.done', captured.epoch);
    post({ kind: 'captured', epoch: captured.epoch });
  }

  private undo(epoch: number, now: number): void {
    const { proxy, links, mirror } = this.parts;
    this.inFlight = undefined;
    proxy.abort(epoch, now);
    links.say(messages.abort, encodeCount(epoch));
    mirror?.abort(epoch);
  }

  /** From here on the secondary has these pages. */
  private know(capture: Capture): void {
    this.forget();
    if (capture.pages.length <= deltaBaseBytesMax) this.known = capture;
    else capture.release();
  }

  private forget(): void {
    this.known?.release();
    this.known = undefined;
  }

  private knownPages(): DeltaBase | undefined {
    return this.known === undefined ? undefined : { runs: this.known.runs, contents: this.known.pages };
  }

  private newEncoder(epoch: number, sequence: number, kind: 'round' | 'checkpoint'): CheckpointEncoder {
    return new CheckpointEncoder({ epoch, base: this.base, sequence, kind, compressor: this.parts.compressor });
  }

  private async send(message: { type: number; parts: Uint8Array[] }): Promise<void> {
    this.assertOpen();
    const { bulk } = this.parts.links;
    bulk.send(message.type, ...message.parts);
    await bulk.drain();
  }

  private assertOpen(): void {
    const { links } = this.parts;
    if (links.isOver || links.bulk.ended) throw new ColoError(errorCodes.channel, 'the link to the secondary is gone');
  }
}

/** The pages written so far, where the guest must not write while they are listed. */
export async function collectStanding(vm: Pick<GuestVm, 'tracker' | 'stop' | 'resume'>): Promise<PageRuns> {
  await vm.stop();
  try {
    return vm.tracker.collect();
  } finally {
    await vm.resume();
  }
}

function recordOf({ epoch, capture, capturedAt, heldFrames }: Captured, reason: Reason): CheckpointRecord {
  return {
    epoch,
    reason: { kind: reason.kind, detail: reasonText(reason) },
    ...{ startedAtMs: capturedAt, phases: capture.phases, pauseMs: capture.phases.pauseMs },
    ...{
      pages: capture.dirtyPages,
      rawBytes: capture.pages.length,
      sentBytes: 0,
      commitMs: 0,
      heldFrames,
      applied: null,
    },
  };
}

/** A reason in one line: the connection, the offset and the bytes, where there are any. */
function reasonText(reason: Reason): string {
  const offset = reason.offset === undefined ? undefined : `at byte ${reason.offset}`;
  return [reason.connection, offset, reason.detail].filter((part) => part !== undefined).join(' ');
}
