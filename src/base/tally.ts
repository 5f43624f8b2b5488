// One word for many things of a kind: the first is told at once, those that come after it are counted and told
// together, once in a while. For what a stranger, or a starved host, can make happen as often as it likes.

import type { Clock } from './clock.ts';
import { tallyEveryMs, tallyKindsMax } from './limits.ts';

/** `count`: so many of the kind since it was told last; `detail` is of the newest. */
export type Told = (kind: string, count: number, detail: string) => void;

const other = 'other';

interface Kind {
  count: number;
  detail: string;
  cancel: () => void;
}

export class Tally {
  private readonly clock: Clock;
  private readonly tell: Told;
  private readonly kinds = new Map<string, Kind>();

  constructor(clock: Clock, tell: Told) {
    this.clock = clock;
    this.tell = tell;
  }

  note(kind: string, detail: string): void {
    const known = this.kinds.get(kind);
    if (known !== undefined) {
      known.count += 1;
      known.detail = detail;
    } else if (this.kinds.size >= tallyKindsMax && kind !== other) this.note(other, `${kind}: ${detail}`);
    else {
      this.kinds.set(kind, { count: 0, detail, cancel: this.later(kind) });
      this.tell(kind, 1, detail);
    }
  }

  /** Tells what was not told yet. */
  close(): void {
    for (const [kind, { count, detail, cancel }] of this.kinds) {
      cancel();
      if (count > 0) this.tell(kind, count, detail);
    }
    this.kinds.clear();
  }

  private later(kind: string): () => void {
    return this.clock.after(tallyEveryMs, () => {
      const known = this.kinds.get(kind);
      this.kinds.delete(kind);
      if (known === undefined || known.count === 0) return;
      this.kinds.set(kind, { count: 0, detail: known.detail, cancel: this.later(kind) });
      this.tell(kind, known.count, known.detail);
    });
  }
}
