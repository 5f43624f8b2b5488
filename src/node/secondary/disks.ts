// The disks of a secondary, beside its applier: the journal takes what the primary writes, and a checkpoint brings the
// replica to its epoch while the SVM stands still. What was written behind the newest checkpoint never happened when
// this node takes over.

import type { DiskActivity } from '../../base/disk-activity.ts';
import { ColoError, errorCodes } from '../../base/errors.ts';
import { diskMessages, parseAbort, parseHash, parseMark, parseSession, type Session } from '../../disk/message.ts';
import type { Replica, ReplicaEvents } from '../../disk/replica.ts';
import type { NodeContext } from '../context.ts';

/** Types of the bulk link from here on are the disks'. */
export const firstDiskMessage = diskMessages.session;

export class SecondaryDisks {
  readonly count: number;
  private readonly context: NodeContext;
  private readonly replica: Replica;

  private constructor(context: NodeContext, replica: Replica) {
    this.context = context;
    this.replica = replica;
    this.count = replica.sizes.length;
  }

  static async open(
    context: NodeContext,
    options: { session: Session; term: number; events: ReplicaEvents; activity: DiskActivity },
  ): Promise<SecondaryDisks> {
    const replica = await context.platform.openReplica(options);
    return new SecondaryDisks(context, replica);
  }

  /** Where the replica of before stands, to which only what changed has to be added; undefined when there is none. */
  get kept(): number | undefined {
    return this.replica.kept;
  }

  get journalBytes(): number {
    return this.replica.journalBytes;
  }

  /** A message of the bulk link; throws when the peer's stream is wrong. */
  receive(type: number, payload: Uint8Array): void {
    const refused = this.take(type, payload);
    if (refused !== undefined) throw refused;
  }

  /** Resolves when the checkpoint may be committed as far as the disks go; rejects when it must not. */
  complete(epoch: number): Promise<void> {
    return this.replica.complete(epoch);
  }

  async apply(epoch: number): Promise<void> {
    const cost = await this.replica.apply(epoch);
    this.context.log.debug({ epoch, ...cost }, 'disks applied');
  }

  /** `verify`: whether the replicas are the primary's disks at that capture; null when it did not say. */
  verify(epoch: number): Promise<boolean | null> {
    const { platform } = this.context;
    return this.replica.verify(epoch, (path, bytes) => platform.hashFile(path, bytes));
  }

  /** False: the replica is to stay as it is (Replica.takeOver). */
  takeOver(term: number): Promise<boolean> {
    return this.replica.takeOver(term);
  }

  close(): Promise<void> {
    return this.replica.close();
  }

  private take(type: number, payload: Uint8Array): ColoError | undefined {
    switch (type) {
      case diskMessages.record:
        return this.replica.receive(payload);
      case diskMessages.mark: {
        const mark = parseMark(payload);
        return mark instanceof ColoError ? mark : this.replica.mark(mark);
      }
      case diskMessages.abort: {
        const epoch = parseAbort(payload);
        if (epoch instanceof ColoError) return epoch;
        this.replica.abort(epoch);
        return undefined;
      }
      case diskMessages.hash: {
        const hash = parseHash(payload);
        if (hash instanceof ColoError) return hash;
        this.replica.expectHash(hash);
        return undefined;
      }
      default:
        return new ColoError(errorCodes.channel, `the peer sent an unknown message of type ${type} for the disks`);
    }
  }
}

/** The session in a message of its type; throws when it is none. */
export function readSession(payload: Uint8Array): Session {
  const session = parseSession(payload);
  if (session instanceof ColoError) throw session;
  return session;
}
