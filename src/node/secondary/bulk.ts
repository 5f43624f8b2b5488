// What the primary sends its secondary in bulk: its session, which starts the SVM, then rounds and checkpoints.
//
//    machine, disks of the session ─► template ─► SVM started, paused ─► ready
//    round, checkpoint ─► staged; all of it here, the disks' part too ─► SecondaryPair: may be committed
//                    ├──► the disks cannot have it ─► their failure is told, and the session ends
//                    └──► not whole ─► refused; in the initial copy, which nothing can repair, the session ends

import { DiskActivity } from '../../base/disk-activity.ts';
import { ColoError, errorCodes, errorText } from '../../base/errors.ts';
import type { CaptureState } from '../../checkpoint/message.ts';
import type { SecondaryEvent, SecondaryPair } from '../../controller/secondary-pair.ts';
import type { Session } from '../../disk/message.ts';
import type { NodeContext } from '../context.ts';
import { diskLookMs, diskSilentLooks } from '../limits.ts';
import { type Machine, parseMachine, traitsType } from '../pairing/alike.ts';
import type { PairLinks } from '../pairing/links.ts';
import { encodeCount, encodeText, messages } from '../pairing/message.ts';
import { Applier } from './applier.ts';
import { firstDiskMessage, readSession, SecondaryDisks } from './disks.ts';
import type { OwnMachine } from './own-machine.ts';
import { templateType } from './template.ts';

export interface BulkParts {
  context: NodeContext;
  links: Pick<PairLinks, 'isOver' | 'bulk' | 'say'>;
  pair: Pick<SecondaryPair, 'state'>;
  machine: OwnMachine;
  /** What the proxy could not go on from. */
  wrongWith: (state: CaptureState) => string | undefined;
  /** The SVM of the session stands ready, paused: the pairing has it from now on. */
  opened: (applier: Applier) => void;
  /** The SVM that the pairing has; undefined before it is opened, and again when the pairing is over. */
  applier: () => Applier | undefined;
  post: (event: SecondaryEvent) => void;
}

export class SecondaryBulk {
  /** Resolves when no VM is being started. */
  opening: Promise<void> = Promise.resolve();
  private readonly parts: BulkParts;
  /** What the disks of this session are asked and answer. */
  private readonly activity = new DiskActivity();
  private isOpening = false;
  /** What disks the primary has, as its session says. */
  private diskSession: Session | undefined;
  /** What machine the primary runs, as its session says. */
  private machine: Machine | undefined;

  constructor(parts: BulkParts) {
    this.parts = parts;
  }

  /** A message of the bulk link; throws when the peer's stream is wrong. */
  receive(type: number, payload: Uint8Array): void {
    if (type === templateType) return this.open(payload);
    if (type === traitsType) {
      this.machine = parseMachine(payload);
      return;
    }
    if (type === firstDiskMessage) {
      this.diskSession = readSession(payload);
      return;
    }
    const applier = this.parts.applier();
    if (applier === undefined) throw new ColoError(errorCodes.channel, 'the peer sent a checkpoint before its session');
    if (type > firstDiskMessage) receiveDisk(applier, type, payload);
    else this.stage(applier, type, payload);
  }

  /** To be called every `diskLookMs`: a disk that hangs would have its primary wait for ever. */
  lookAtDisks(): void {
    const silent = this.activity.look(diskSilentLooks);
    const { kind } = this.parts.pair.state;
    if (silent === undefined || (kind !== 'joining' && kind !== 'protected')) return;
    this.disksFailed(`the disk that holds ${silent} has not answered for ${(diskSilentLooks * diskLookMs) / 1000} s`);
  }

  private open(payload: Uint8Array): void {
    if (this.parts.applier() !== undefined || this.isOpening)
      throw new ColoError(errorCodes.channel, 'the peer began its session twice');
    this.isOpening = true;
    this.opening = this.begin(Uint8Array.from(payload)).finally(() => {
      this.isOpening = false;
    });
  }

  private stage(applier: Applier, type: number, payload: Uint8Array): void {
    const outcome = applier.stage(type, payload);
    this.slowDown(applier);
    if (outcome === undefined) return;
    if (outcome.kind === 'complete') void this.completed(applier, outcome.epoch);
    // Pages of the initial copy are missing here now, and nothing that follows in this session can bring them again.
    else if (this.parts.pair.state.kind === 'joining') throw new ColoError(errorCodes.checkpoint, outcome.why);
    else this.refuse(outcome.epoch, outcome.why);
  }

  /** As of pages that are missing: nothing brings those of the first checkpoint again, and the session ends. */
  private notSpilled(epoch: number, why: string): void {
    if (this.parts.pair.state.kind === 'joining') this.disksFailed(why);
    else this.refuse(epoch, why);
  }

  /** The primary waits while the disk is far behind with what does not fit in memory. */
  private slowDown(applier: Applier): void {
    const caughtUp = applier.catchUp();
    const { bulk, isOver } = this.parts.links;
    if (caughtUp === undefined || isOver || bulk.pause === undefined) return;
    bulk.pause(true);
    void caughtUp.then(() => bulk.pause?.(false));
  }

  /** A checkpoint is staged: it may be committed when the disks have all of it, too. */
  private async completed(applier: Applier, epoch: number): Promise<void> {
    const isOver = () => this.parts.applier() !== applier;
    const spilled = applier.settled(epoch);
    if (spilled !== undefined) {
      const wrong = await spilled.then(() => undefined, errorText);
      if (isOver()) return;
      if (wrong !== undefined) return this.notSpilled(epoch, wrong);
    }
    try {
      if (applier.disks !== undefined) await applier.disks.complete(epoch);
    } catch (error) {
      if (!isOver()) this.disksFailed(error instanceof ColoError ? error.message : errorText(error));
      return;
    }
    if (!isOver()) this.parts.post({ kind: 'staged', epoch });
  }

  /**
   * The disks cannot have a checkpoint. The first one brings what no later one brings again: its session is over. Nor
   * will they have a later one: a full disk that only refused would be dropped in the end, and then claim the term as a
   * rival of its living primary, and not be able to serve.
   */
  private disksFailed(why: string): void {
    this.parts.context.log.error({ error: why }, 'the replica cannot be written');
    this.parts.links.say(messages.diskFailed, encodeText(why));
    this.parts.post({ kind: 'disksFailed', why });
  }

  private refuse(epoch: number, why: string): void {
    this.parts.links.say(messages.refused, encodeCount(epoch), encodeText(why));
  }

  /** A session begins: starts the SVM, paused, with the primary's template. */
  private async begin(payload: Uint8Array): Promise<void> {
    const { machine, links, opened } = this.parts;
    let disks: SecondaryDisks | undefined;
    try {
      // Before anything is started, or taken from a replica.
      machine.refuseUnlike(this.machine);
      disks = await this.openDisks();
      const applier = await this.openApplier(payload, disks);
      disks = undefined;
      if (links.isOver) return await applier.close();
      opened(applier);
      machine.started(applier.vm);
      machine.refuseUnlike(this.machine);
      if (applier.disks?.kept !== undefined) links.say(messages.diskKept, encodeCount(applier.disks.kept));
      links.say(messages.ready);
    } catch (error) {
      await this.notBegun(error, disks);
    }
  }

  private async openDisks(): Promise<SecondaryDisks | undefined> {
    const { context, links } = this.parts;
    const { diskSession: session, activity } = this;
    if (session === undefined) return undefined;
    const events = {
      held: (position: number) => links.say(messages.diskHeld, encodeCount(position)),
      failed: (error: Error) => this.disksFailed(error.message),
    };
    return await SecondaryDisks.open(context, { session, term: links.bulk.peer.term, events, activity });
  }

  private openApplier(payload: Uint8Array, disks: SecondaryDisks | undefined): Promise<Applier> {
    const { context, wrongWith, pair } = this.parts;
    const mayTry = () => pair.state.kind === 'protected';
    return Applier.open(context, payload, { disks, wrongWith, mayTry, activity: this.activity });
  }

  private async notBegun(error: unknown, disks: SecondaryDisks | undefined): Promise<void> {
    const { context, links, post } = this.parts;
    const { log } = context;
    // Files that cannot be closed either do not keep the primary from being told.
    await disks?.close().catch((failed: unknown) => log.error({ error: errorText(failed) }, 'disks are not closed'));
    log.error({ error: errorText(error) }, 'the SVM could not be started');
    links.say(messages.diskFailed, encodeText(errorText(error)));
    post({ kind: 'vmEnded', why: errorText(error) });
  }
}

function receiveDisk({ disks }: Applier, type: number, payload: Uint8Array): void {
  if (disks === undefined) throw new ColoError(errorCodes.channel, 'the peer sent a disk it never named');
  disks.receive(type, payload);
}
