// What the primary sends its secondary in bulk: its session, which starts the SVM, then rounds and checkpoints.
//
//    disks of the session ─► template ─► SVM started, paused ─► ready
//    round, checkpoint ─► staged; all of it here, the disks' part too ─► SecondaryPair: may be committed
//                    ├──► the disks cannot have it ─► their failure is told, and the session ends
//                    └──► not whole ─► refused; in the initial copy, which nothing can repair, the session ends

import { DiskActivity } from '../../base/disk-activity.ts';
import { ColoError, errorCodes, errorText } from '../../base/errors.ts';
import type { Session } from '../../disk/message.ts';
import { diskLookMs, diskSilentLooks, madeTraitsMs } from '../limits.ts';
import {
  type Machine,
  madeTraits,
  parseMachine,
  refuseUnlike,
  type Traits,
  toldTraits,
  traitsType,
} from '../pairing/alike.ts';
import { encodeCount, encodeText, messages } from '../pairing/message.ts';
import { Applier, templateType } from './applier.ts';
import { firstDiskMessage, readSession, SecondaryDisks } from './disks.ts';
import type { SecondaryNode } from './secondary.ts';

export class SecondaryBulk {
  /** Resolves when no VM is being started. */
  opening: Promise<void> = Promise.resolve();
  private readonly node: SecondaryNode;
  private isOpening = false;
  /** What disks the primary has, as its session says. */
  private diskSession: Session | undefined;
  /** What machine the primary runs, as its session says. */
  private machine: Machine | undefined;
  /** What this node's QEMU last made of its machine. */
  private made: { traits: Traits; at: number } | undefined;
  /** What the disks of this session are asked and answer. */
  private activity = new DiskActivity();

  constructor(node: SecondaryNode) {
    this.node = node;
  }

  /** A primary has opened its links: what an earlier one said of its disks is over. */
  paired(): void {
    this.diskSession = undefined;
    this.machine = undefined;
    this.activity = new DiskActivity();
  }

  /** To be called every `diskLookMs`: a disk that hangs would have its primary wait for ever. */
  lookAtDisks(): void {
    const silent = this.activity.look(diskSilentLooks);
    const { kind } = this.node.pair.state;
    if (silent === undefined || (kind !== 'joining' && kind !== 'protected')) return;
    this.disksFailed(`the disk that holds ${silent} has not answered for ${(diskSilentLooks * diskLookMs) / 1000} s`);
  }

  /** A message of the bulk link; throws when the peer's stream is wrong. */
  receive(type: number, payload: Uint8Array): void {
    if (type === templateType) {
      if (this.node.applier !== undefined || this.isOpening)
        throw new ColoError(errorCodes.channel, 'the peer began its session twice');
      this.isOpening = true;
      this.opening = this.begin(Uint8Array.from(payload)).finally(() => {
        this.isOpening = false;
      });
      return;
    }
    if (type === traitsType) {
      this.machine = parseMachine(payload);
      return;
    }
    if (type === firstDiskMessage) {
      this.diskSession = readSession(payload);
      return;
    }
    const applier = this.node.applier;
    if (applier === undefined) throw new ColoError(errorCodes.channel, 'the peer sent a checkpoint before its session');
    if (type > firstDiskMessage) {
      if (applier.disks === undefined) throw new ColoError(errorCodes.channel, 'the peer sent a disk it never named');
      applier.disks.receive(type, payload);
      return;
    }
    const outcome = applier.stage(type, payload);
    this.slowDown(applier);
    if (outcome === undefined) return;
    if (outcome.kind === 'complete') void this.completed(applier, outcome.epoch);
    // Pages of the initial copy are missing here now, and nothing that follows in this session can bring them again.
    else if (this.node.pair.state.kind === 'joining') throw new ColoError(errorCodes.checkpoint, outcome.why);
    else this.refuse(outcome.epoch, outcome.why);
  }

  /** As of pages that are missing: nothing brings those of the first checkpoint again, and the session ends. */
  private notSpilled(epoch: number, why: string): void {
    if (this.node.pair.state.kind === 'joining') this.disksFailed(why);
    else this.refuse(epoch, why);
  }

  /** The primary waits while the disk is far behind with what does not fit in memory. */
  private slowDown(applier: Applier): void {
    const caughtUp = applier.catchUp();
    const link = this.node.links?.bulk;
    if (caughtUp === undefined || link?.pause === undefined) return;
    link.pause(true);
    void caughtUp.then(() => link.pause?.(false));
  }

  /** A checkpoint is staged: it may be committed when the disks have all of it, too. */
  private async completed(applier: Applier, epoch: number): Promise<void> {
    const spilled = applier.settled(epoch);
    if (spilled !== undefined) {
      const wrong = await spilled.then(() => undefined, errorText);
      if (this.node.applier !== applier) return;
      if (wrong !== undefined) return this.notSpilled(epoch, wrong);
    }
    try {
      if (applier.disks !== undefined) await applier.disks.complete(epoch);
    } catch (error) {
      if (this.node.applier === applier)
        this.disksFailed(error instanceof ColoError ? error.message : errorText(error));
      return;
    }
    if (this.node.applier === applier) this.node.post({ kind: 'staged', epoch });
  }

  /**
   * The disks cannot have a checkpoint. The first one brings what no later one brings again: its session is over. Nor will
   * they have a later one: a full disk that only refused would be dropped in the end, and then claim the term as a rival of
   * its living primary, and not be able to serve.
   */
  private disksFailed(why: string): void {
    this.node.context.log.error({ error: why }, 'the replica cannot be written');
    this.node.links?.packet.send(messages.diskFailed, encodeText(why));
    this.node.post({ kind: 'disksFailed', why });
  }

  private refuse(epoch: number, why: string): void {
    this.node.links?.packet.send(messages.refused, encodeCount(epoch), encodeText(why));
  }

  private openDisks(session: Session, term: number): Promise<SecondaryDisks> {
    return SecondaryDisks.open(this.node.context, {
      session,
      term,
      activity: this.activity,
      events: {
        held: (position) => this.node.links?.packet.send(messages.diskHeld, encodeCount(position)),
        failed: (error) => this.disksFailed(error.message),
      },
    });
  }

  /**
   * Another host that would run another machine, and could not load this one's state or go on from it. What is known of its
   * own QEMU is compared before anything is started, or taken from a replica.
   */
  private refuseUnlike(): void {
    const { machine, made, node } = this;
    const { config, clock } = node.context;
    if (machine === undefined)
      throw new ColoError(errorCodes.channel, 'the primary did not say what machine it runs', {
        hint: 'both nodes need the same version of COLO',
      });
    const ours = { node: config.node, told: toldTraits(config), made: made?.traits ?? {} };
    refuseUnlike('told', machine, ours);
    if (made !== undefined && clock.now() - made.at < madeTraitsMs) refuseUnlike('made', machine, ours);
  }

  /** A session begins: starts the SVM, paused, with the primary's template. */
  private async begin(payload: Uint8Array): Promise<void> {
    const { diskSession, node } = this;
    const { links } = node;
    let disks: SecondaryDisks | undefined;
    try {
      this.refuseUnlike();
      if (diskSession !== undefined) disks = await this.openDisks(diskSession, links?.packet.peer.term ?? 0);
      const applier = await Applier.open(node.context, payload, {
        disks,
        activity: this.activity,
        wrongWith: (state) => node.proxy.wrongWith(state),
        mayTry: () => node.pair.state.kind === 'protected',
      });
      disks = undefined;
      if (node.links === undefined) {
        await applier.close();
        return;
      }
      node.adopt(applier);
      this.made = { traits: madeTraits(applier.vm), at: node.context.clock.now() };
      this.refuseUnlike();
      if (applier.disks?.kept !== undefined) node.links.packet.send(messages.diskKept, encodeCount(applier.disks.kept));
      node.links.packet.send(messages.ready);
    } catch (error) {
      const log = node.context.log;
      // Files that cannot be closed either do not keep the primary from being told.
      await disks?.close().catch((failed: unknown) => log.error({ error: errorText(failed) }, 'disks are not closed'));
      log.error({ error: errorText(error) }, 'the SVM could not be started');
      node.links?.packet.send(messages.diskFailed, encodeText(errorText(error)));
      node.post({ kind: 'vmEnded', why: errorText(error) });
    }
  }
}
