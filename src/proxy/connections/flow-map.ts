// A map from flow keys to entries, without a string or an object per look-up: entries of one hash are chained.

import type { FlowKey } from '../../packet/flow-key.ts';

export interface FlowEntry<T> {
  readonly key: FlowKey;
  /** The next entry of the same hash; owned by the map. */
  next: T | undefined;
}

export class FlowMap<T extends FlowEntry<T>> {
  private readonly heads = new Map<number, T>();
  size = 0;

  get(key: FlowKey): T | undefined {
    let entry = this.heads.get(key.hash());
    while (entry !== undefined && !entry.key.equals(key)) entry = entry.next;
    return entry;
  }

  /** Adds an entry that is not in the map. */
  add(entry: T): void {
    const hash = entry.key.hash();
    entry.next = this.heads.get(hash);
    this.heads.set(hash, entry);
    this.size += 1;
  }

  delete(entry: T): void {
    const hash = entry.key.hash();
    const head = this.heads.get(hash);
    if (head === entry) {
      if (entry.next === undefined) this.heads.delete(hash);
      else this.heads.set(hash, entry.next);
      this.size -= 1;
      return;
    }
    for (let before = head; before !== undefined; before = before.next) {
      if (before.next !== entry) continue;
      before.next = entry.next;
      this.size -= 1;
      return;
    }
  }

  *values(): Generator<T> {
    for (const head of this.heads.values()) {
      for (let entry: T | undefined = head; entry !== undefined; ) {
        const next: T | undefined = entry.next;
        yield entry;
        entry = next;
      }
    }
  }

  clear(): void {
    this.heads.clear();
    this.size = 0;
  }
}
