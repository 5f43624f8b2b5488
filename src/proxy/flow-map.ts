// A map from four numbers to an entry, without a string or an object per look-up: entries of one hash are chained.

import { flowHash } from '../packet/flow-key.ts';

export interface FlowEntry<T> {
  readonly a: number;
  readonly b: number;
  readonly c: number;
  readonly d: number;
  /** The next entry of the same hash; owned by the map. */
  next: T | undefined;
}

export class FlowMap<T extends FlowEntry<T>> {
  private readonly heads = new Map<number, T>();
  size = 0;

  get(a: number, b: number, c: number, d: number): T | undefined {
    let entry = this.heads.get(flowHash(a, b, c, d));
    while (entry !== undefined && (entry.a !== a || entry.b !== b || entry.c !== c || entry.d !== d))
      entry = entry.next;
    return entry;
  }

  /** Adds an entry that is not in the map. */
  add(entry: T): void {
    const hash = flowHash(entry.a, entry.b, entry.c, entry.d);
    entry.next = this.heads.get(hash);
    this.heads.set(hash, entry);
    this.size += 1;
  }

  delete(entry: T): void {
    const hash = flowHash(entry.a, entry.b, entry.c, entry.d);
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
