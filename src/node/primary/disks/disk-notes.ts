// The notes of what changes on a primary's disks, over all its secondaries: begins and forgets them at QEMU when
// disk/notes.ts says so. A note that cannot be begun costs time and nothing else: without one the next copy is of
// everything.

import { errorText } from '../../../base/errors.ts';
import type { Log } from '../../../base/log.ts';
import { Notes } from '../../../disk/notes.ts';
import type { ChangeNotes } from '../../platform.ts';

export class DiskNotes {
  private readonly parts: { source: ChangeNotes; log: Pick<Log, 'warn'>; writtenBytes: () => number };
  private readonly notes: Notes;
  private isBeginning = false;

  /** `writtenBytes`: how much the guest has written in all, which tells how large a note has grown. */
  constructor(parts: { source: ChangeNotes; log: Pick<Log, 'warn'>; writtenBytes: () => number }) {
    this.parts = parts;
    this.notes = new Notes(parts.source.renewBytes);
  }

  /** The name of this VM's disks on this node: a replica of another lineage is of other disks. */
  get lineage(): string {
    return this.parts.source.lineage;
  }

  /**
   * A replica at this position or behind it needs only what the note `name` says; undefined when it needs everything.
   */
  get since(): number | undefined {
    return this.notes.since;
  }

  get name(): string | undefined {
    return this.notes.name;
  }

  /** Begins a note when one is due. */
  async beginIfDue(): Promise<void> {
    const { source, log, writtenBytes } = this.parts;
    const name = this.isBeginning ? undefined : this.notes.wanted(writtenBytes());
    if (name === undefined) return;
    this.isBeginning = true;
    try {
      await source.begin(name);
      this.notes.begun(name, writtenBytes());
    } catch (error) {
      log.warn({ error: errorText(error) }, 'what changes on the disks is not noted');
    } finally {
      this.isBeginning = false;
    }
  }

  /** A capture, with everything up to `position`. */
  marked(position: number): void {
    this.notes.marked(position);
  }

  /** The secondary has applied everything up to `position`: a note of what changed before it is of no use any more. */
  applied(position: number): void {
    const gone = this.notes.applied(position);
    if (gone !== undefined) this.forget(gone);
    void this.beginIfDue();
  }

  /** The next copy is of everything. */
  clear(): void {
    for (const name of this.notes.clear()) this.forget(name);
  }

  private forget(note: string): void {
    const { source, log } = this.parts;
    const warn = (error: unknown) => log.warn({ error: errorText(error) }, 'a note of changes stays');
    source.forget(note).catch(warn);
  }
}
