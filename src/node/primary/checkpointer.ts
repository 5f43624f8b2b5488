// The primary's half of a checkpoint: capture, encode, send, and the record of what it cost. Ordering around the stop:
//
//   hold ingress ─► QEMU has taken all of it ─► stop ─┬─► drain the card, proxy.capture, marker ─┬─► cont ─► let ingress go
//                                                     └────────── devices, dirty pages ──────────┘
//
// So everything the guest sent before it stopped belongs to the closing epoch, and everything mirrored behind the marker
// came after the capture: the secondary replays exactly that. Where the system cannot say what QEMU has taken, the last
// moments of ingress are repeated instead; a duplicate frame is harmless, as on any network.

import { ColoError, errorCodes } from '../../base/errors.ts';
import type { PageRuns } from '../../base/page-runs.ts';
import type { Compressor } from '../../checkpoint/compress.ts';
import type { DeltaBase } from '../../checkpoint/delta.ts';
import { CheckpointEncoder, encodeTemplate } from '../../checkpoint/encode.ts';
import { deltaBaseBytesMax } from '../../checkpoint/limits.ts';
import { parseApplied } from '../../checkpoint/message.ts';
import type { CheckpointRecord } from '../../checkpoint/record.ts';
import type { Reason } from '../../controller/primary-pair.ts';
import type { Capture } from '../../qemu/vm.ts';
import { settleMs } from '../limits.ts';
import { encodeMachine, madeTraits, toldTraits, traitsType } from '../pairing/alike.ts';
import { machineHash } from '../pairing/machine-hash.ts';
import { encodeCount, encodeMarker, messages } from '../pairing/message.ts';
import { type GuestVm, type PeerLink, settle } from '../platform.ts';
import type { PrimaryNode } from './primary.ts';

/** What the proxy closed at a capture. */
interface Closing {
  epoch: number;
  table: Uint8Array;
  held: Uint8Array;
}

interface InFlight {
  epoch: number;
  reason: Reason;
  capturedAt: number;
  /** From the line until the guest's clocks went on: behind it, or before it where they did not stand still. */
  standsMs: number;
  capture: Capture;
  captured: Closing;
  hash: string;
  record: CheckpointRecord;
}

export class Checkpointer {
  private readonly node: PrimaryNode;
  private readonly compressor: Compressor;
  /** The secondary has loaded a checkpoint of this session, and its machine was well after it. */
  hasLoaded = false;
  private inFlight: InFlight | undefined;
  /** Resolves when no capture is under way. */
  private capturing: Promise<void> = Promise.resolve();
  private rounds = 0;
  /** The epoch of the newest checkpoint that the secondary holds complete. */
  private base = 0;
  /** Its pages, to which the next one's are compared; undefined when there were too many of them. */
  private known: Capture | undefined;

  constructor(node: PrimaryNode) {
    this.node = node;
    this.compressor = node.context.platform.compressor();
  }

  /** Tells a new secondary what machine to start. */
  async sendSession(template: Uint8Array): Promise<void> {
    this.base = 0;
    this.hasLoaded = false;
    this.forget();
    const { config } = this.node.context;
    const link = this.bulkLink();
    const machine = { node: config.node, told: toldTraits(config), made: madeTraits(this.node.parts.vm) };
    await sendBulk(link, { type: traitsType, parts: [encodeMachine(machine)] });
    await this.node.disks?.announce(link);
    const message = await encodeTemplate(template, { specHash: machineHash(config), compressor: this.compressor });
    await sendBulk(link, message);
  }

  /** Sends every page written since the round before (the first: every page) while the guest runs. */
  async sendRound(round: number): Promise<void> {
    const { vm } = this.node.parts;
    const link = this.bulkLink();
    // First the disks, then the RAM: copying a disk takes long, and the guest writes its RAM meanwhile.
    if (round === 0) await this.node.disks?.protect(link);
    const runs = vm.tracker.mustStand ? await collectStanding(vm) : vm.tracker.collect();
    if (round === 0) {
      // A secondary that has nothing needs every page, whatever was collected for one before it.
      runs.clear();
      runs.add(0, vm.ram.length);
    }
    const epoch = this.node.proxy.currentEpoch + 1;
    const encoder = new CheckpointEncoder({
      ...{ epoch, base: this.base, sequence: round, kind: 'round' as const },
      compressor: this.compressor,
    });
    try {
      for await (const message of encoder.round(runs, vm.tracker.copy ?? vm.ram)) await sendBulk(link, message);
    } catch (error) {
      vm.tracker.putBack(runs);
      throw error;
    }
    if (this.node.peer.links?.bulk !== link) return;
    this.rounds = round + 1;
    this.node.context.platform.reached('round.sent', epoch);
    this.node.context.log.debug({ round, pages: runs.pages, sent: encoder.totals.sentBytes }, 'round');
    this.node.post({ kind: 'roundSent', dirtyPages: vm.tracker.count() });
  }

  /** Captures; the guest runs again when this returns or throws. */
  async capture(reason: Reason): Promise<void> {
    const before = this.capturing;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.capturing = promise;
    try {
      // One that was begun for a secondary that is gone may still stop and resume the guest.
      await before;
      await this.captureFor(this.bulkLink(), reason);
    } finally {
      this.node.releaseIngress();
      resolve();
    }
  }

  private async captureFor(link: PeerLink, reason: Reason): Promise<void> {
    const { node } = this;
    const isCurrent = () => node.peer.links?.bulk === link;
    const { clock, config } = node.context;
    const { vm, nic } = node.parts;
    await node.disks?.settle();
    let settled = false;
    const taken: { closing?: Closing } = {};
    let stoppedAt = 0;
    let hash = '';
    let heldFrames = 0;
    let bytesSeen = -1;
    try {
      const capture = await vm.capture({
        beforeStop: async () => {
          node.ingress.hold();
          settled = await settle(nic, settleMs, node.context);
        },
        onStopped: () => {
          stoppedAt = clock.now();
          // The secondary is gone: no line may be drawn that nobody would ever commit.
          if (!isCurrent()) return;
          heldFrames = node.proxy.counters.heldFrames;
          const closing = node.proxy.capture(stoppedAt);
          taken.closing = closing;
          node.disks?.mark(closing.epoch);
          node.peer.links?.packet.send(messages.marker, encodeMarker({ epoch: closing.epoch, at: stoppedAt }));
          if (!settled) node.replayRecent(stoppedAt);
          node.context.platform.reached('capture.stopped', closing.epoch);
        },
        isQuiet: () => {
          nic.drain();
          const isQuiet = nic.bytesIn === bytesSeen;
          bytesSeen = nic.bytesIn;
          return isQuiet;
        },
        beforeResume: async () => {
          if (!config.protect.verify) return;
          hash = node.context.platform.hashRam(vm.ram);
          if (taken.closing !== undefined) await node.disks?.sendHashes(taken.closing.epoch, link);
        },
      });
      // Where the clocks run on during the pause, those of the state are of a moment before the line.
      const standsMs = (capture.clocksOf ?? clock.now()) - stoppedAt;
      const closing = taken.closing;
      if (closing === undefined || !isCurrent()) {
        vm.tracker.putBack(capture.runs);
        capture.release();
        throw new ColoError(errorCodes.channel, 'the secondary was lost during the capture');
      }
      this.keep({ reason, capture, closing, capturedAt: stoppedAt, standsMs, hash, heldFrames });
    } catch (error) {
      // What was captured for a secondary that is gone has been undone with it (PrimaryProxy.goAlone).
      if (taken.closing !== undefined && isCurrent()) this.undo(taken.closing.epoch, clock.now());
      throw error;
    }
    node.context.platform.reached('capture.done', this.inFlight?.epoch ?? 0);
    node.post({ kind: 'captured', epoch: this.inFlight?.epoch ?? 0 });
  }

  /** Sends what was captured; resolves when everything has been given to the link. */
  async send(): Promise<void> {
    const { node, inFlight } = this;
    if (inFlight === undefined) return;
    const link = this.bulkLink();
    const { epoch, capture, captured } = inFlight;
    const encoder = new CheckpointEncoder({
      ...{ epoch, base: this.base, sequence: this.rounds, kind: 'checkpoint' as const },
      compressor: this.compressor,
    });
    node.context.platform.reached('send.begun', epoch);
    const state = {
      deviceState: capture.deviceState,
      table: captured.table,
      held: captured.held,
      standsMs: inFlight.standsMs,
      ramHash: inFlight.hash,
    };
    let messageCount = 0;
    const pages = { runs: capture.runs, contents: capture.pages, state };
    for await (const message of encoder.checkpoint(pages, this.knownPages())) {
      await sendBulk(link, message);
      messageCount += 1;
      if (messageCount === 2) node.context.platform.reached('send.half', epoch);
    }
    inFlight.record.sentBytes = encoder.totals.sentBytes;
    node.context.platform.reached('send.done', epoch);
  }

  /** The secondary holds it, complete. */
  committed(epoch: number, now: number): void {
    const { inFlight } = this;
    if (inFlight?.epoch !== epoch) return;
    this.base = epoch;
    this.node.disks?.protectedNow();
    this.node.peer.plight.protectedNow();
    inFlight.record.commitMs = now - inFlight.capturedAt;
    this.know(inFlight.capture);
    this.node.records.add(inFlight.record);
    this.node.context.log.debug(inFlight.record, 'checkpoint');
  }

  /** The secondary runs from it; returns the epoch that it says so of. */
  applied(payload: Uint8Array): number {
    const applied = parseApplied(payload);
    if (applied instanceof ColoError) throw applied;
    this.hasLoaded ||= applied.ok;
    this.node.peer.loaded();
    if (this.inFlight?.epoch === applied.epoch) {
      this.node.records.applied(applied);
      this.node.disks?.applied(applied.epoch);
      this.inFlight = undefined;
    }
    return applied.epoch;
  }

  /** The secondary refused it: the capture never happened. */
  abort(epoch: number, now: number): void {
    const { inFlight } = this;
    if (inFlight?.epoch !== epoch) return;
    this.node.parts.vm.tracker.putBack(inFlight.capture.runs);
    inFlight.capture.release();
    this.undo(epoch, now);
  }

  /** The secondary is gone: what was captured is of no use. The pages stay dirty for nobody: a new one copies all. */
  dropped(): void {
    // One that was committed is what `known` holds.
    if (this.inFlight?.capture !== this.known) this.inFlight?.capture.release();
    this.inFlight = undefined;
    this.base = 0;
    this.forget();
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

  private undo(epoch: number, now: number): void {
    this.inFlight = undefined;
    this.node.proxy.abort(epoch, now);
    this.node.peer.links?.packet.send(messages.abort, encodeCount(epoch));
    this.node.disks?.abort(epoch, this.node.peer.links?.bulk);
  }

  private keep(parts: {
    reason: Reason;
    capture: Capture;
    closing: Closing;
    capturedAt: number;
    standsMs: number;
    hash: string;
    heldFrames: number;
  }): void {
    const { reason, capture, closing, capturedAt, standsMs, hash, heldFrames } = parts;
    this.inFlight = {
      epoch: closing.epoch,
      reason,
      capturedAt,
      standsMs,
      capture,
      captured: closing,
      hash,
      record: {
        epoch: closing.epoch,
        reason: { kind: reason.kind, detail: reasonText(reason) },
        startedAtMs: capturedAt,
        phases: capture.phases,
        pauseMs: capture.phases.pauseMs,
        pages: capture.dirtyPages,
        rawBytes: capture.pages.length,
        sentBytes: 0,
        commitMs: 0,
        heldFrames,
        applied: null,
      },
    };
  }

  /** The link of this pairing: whoever waits holds on to it, and never sends to the next secondary by mistake. */
  private bulkLink(): PeerLink {
    const link = this.node.peer.links?.bulk;
    if (link === undefined) throw new ColoError(errorCodes.channel, 'the link to the secondary is gone');
    return link;
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

async function sendBulk(link: PeerLink, message: { type: number; parts: Uint8Array[] }): Promise<void> {
  if (link.ended) throw new ColoError(errorCodes.channel, 'the link to the secondary is gone');
  link.send(message.type, ...message.parts);
  await link.drain();
}

/** A reason in one line: the connection, the offset and the bytes, where there are any. */
function reasonText(reason: Reason): string {
  const offset = reason.offset === undefined ? undefined : `at byte ${reason.offset}`;
  return [reason.connection, offset, reason.detail].filter((part) => part !== undefined).join(' ');
}
