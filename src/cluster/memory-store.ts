// A store in memory, for tests: nodes share one `Shared`, each opens its own store on it.

import type { Clock } from '../base/clock.ts';
import { checkEntry, type Entry, type Store } from './store.ts';

interface Held {
  value: string;
  revision: number;
  /** When it vanishes; infinity for one that was not announced. */
  until: number;
}

/** The entries, as if on a third machine. */
export interface Shared {
  entries: Map<string, Held>;
  revision: number;
}

export function newShared(): Shared {
  return { entries: new Map(), revision: 0 };
}

export class MemoryStore implements Store {
  private readonly shared: Shared;
  private readonly clock: Pick<Clock, 'now'>;

  constructor(shared: Shared, clock: Pick<Clock, 'now'>) {
    this.shared = shared;
    this.clock = clock;
  }

  async list(): Promise<Entry[]> {
    const now = this.clock.now();
    return [...this.shared.entries]
      .filter(([, held]) => held.until > now)
      .map(([key, { value, revision }]) => ({ key, value, revision }));
  }

  async change(key: string, revision: number, value: string | null): Promise<boolean> {
    checkEntry(key, value);
    const held = this.shared.entries.get(key);
    if ((held?.revision ?? 0) !== revision) return false;
    if (value === null) this.shared.entries.delete(key);
    else this.put(key, value, Number.POSITIVE_INFINITY);
    return true;
  }

  async announce(key: string, value: string, ttlMs: number): Promise<void> {
    checkEntry(key, value);
    this.put(key, value, this.clock.now() + ttlMs);
  }

  async withdraw(key: string): Promise<void> {
    this.shared.entries.delete(key);
  }

  async close(): Promise<void> {}

  private put(key: string, value: string, until: number): void {
    this.shared.revision += 1;
    this.shared.entries.set(key, { value, revision: this.shared.revision, until });
  }
}
