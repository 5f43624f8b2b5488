// The registry's store as a host reaches it: the entries lie in the etcd that also is the arbiter, over the same
// network and at the same members. It may refuse what is written while it still answers what is read, as one that is
// full does.

import { ColoError, errorCodes } from '../../src/base/errors.ts';
import { MemoryStore, type Shared } from '../../src/cluster/memory-store.ts';
import type { Entry, Store } from '../../src/cluster/store.ts';
import { type Asking, askMembers } from './arbiter.ts';
import type { SimProcess } from './process.ts';

export class SimStore implements Store {
  private readonly process: SimProcess;
  private readonly asking: Asking;
  private readonly inner: MemoryStore;
  private readonly refuses: () => boolean;

  constructor(process: SimProcess, shared: Shared, options: { asking: Asking; refuses: () => boolean }) {
    this.process = process;
    this.asking = options.asking;
    this.refuses = options.refuses;
    this.inner = new MemoryStore(shared, { now: () => process.schedule.now });
  }

  list(): Promise<Entry[]> {
    return askMembers(this.process, this.asking, () => this.inner.list());
  }

  change(key: string, revision: number, value: string | null): Promise<boolean> {
    return this.write(() => this.inner.change(key, revision, value));
  }

  announce(key: string, value: string, ttlMs: number): Promise<void> {
    return this.write(() => this.inner.announce(key, value, ttlMs));
  }

  withdraw(key: string): Promise<void> {
    return this.write(() => this.inner.withdraw(key));
  }

  async close(): Promise<void> {}

  private write<T>(operation: () => Promise<T>): Promise<T> {
    return askMembers(this.process, this.asking, async () => {
      if (this.refuses())
        throw new ColoError(errorCodes.arbiter, 'etcdserver: mvcc: database space exceeded (simulated)');
      return operation();
    });
  }
}
