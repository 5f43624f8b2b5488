// From when on it is known which blocks of the disks changed, so that a secondary which still has the replica of an
// epoch behind that moment needs only those. Each note is a set of dirty bitmaps of QEMU that begins at some moment and
// grows; so a second one is begun now and then, and replaces the first when the secondary has applied something behind
// it:
//
//    note 1   ├──────────────────────────────┤ forgotten
//    note 2                ├─────────────────────────────────────►
//    marks         m1            m2 ... m2 applied
//
// A replica at a mark behind a note's beginning differs from the disks only in blocks of that note: what was sent to it
// of later writes, whole or torn, is of these blocks as well. Positions (message.ts) only grow in the life of a VM on
// its node, over all its secondaries, so "at or behind the note's first mark" is all that has to be compared.
//
// Pure: says what is to be done, and is told when it was.

import { notedBytesMax } from './limits.ts';

interface Note {
  name: string;
  /** The first mark behind its beginning. */
  since: number | undefined;
  /** What the guest had written when it began. */
  writtenBytes: number;
}

export class Notes {
  private readonly renewBytes: number;
  private current: Note | undefined;
  private next: Note | undefined;
  private count = 0;

  /** `renewBytes`: written bytes after which a new note is begun. */
  constructor(renewBytes: number = notedBytesMax) {
    this.renewBytes = renewBytes;
  }

  /** The bitmaps to ask for what changed. */
  get name(): string | undefined {
    return this.current?.name;
  }

  /** Replicas at this position or behind it need only what `name` says. */
  get since(): number | undefined {
    return this.current?.since;
  }

  /** A name for a note that is to begin now; undefined when none is needed. */
  wanted(writtenBytes: number): string | undefined {
    if (this.next !== undefined) return undefined;
    const { current } = this;
    if (current !== undefined && (current.since === undefined || writtenBytes - current.writtenBytes < this.renewBytes))
      return undefined;
    this.count += 1;
    return `colo-note-${this.count}`;
  }

  /** It has begun: what is written from now on is in it. */
  begun(name: string, writtenBytes: number): void {
    const note = { name, since: undefined, writtenBytes };
    if (this.current === undefined) this.current = note;
    else this.next = note;
  }

  /** Nothing is known any more; returns the notes that are of no use. */
  clear(): string[] {
    const names = [this.current, this.next].flatMap((note) => (note === undefined ? [] : [note.name]));
    this.current = undefined;
    this.next = undefined;
    return names;
  }

  /** A capture, with everything up to `position`. */
  marked(position: number): void {
    for (const note of [this.current, this.next]) if (note !== undefined) note.since ??= position;
  }

  /** The secondary has applied everything up to `position`; returns the note that is of no use any more. */
  applied(position: number): string | undefined {
    const { current, next } = this;
    if (next?.since === undefined || position < next.since) return undefined;
    this.current = next;
    this.next = undefined;
    return current?.name;
  }
}
