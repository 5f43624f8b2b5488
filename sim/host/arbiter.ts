// The arbiter as a node reaches it: over a network that delays, loses requests, or loses answers, at members that may
// be lost (members.ts). The records themselves are those of src/arbiter/memory.ts. A request of a node that dies
// meanwhile may still arrive.

import type { Arbiter, ClaimResult, Roles, TermRecord } from '../../src/arbiter/arbiter.ts';
import { MemoryArbiter, type Terms } from '../../src/arbiter/memory.ts';
import { ColoError, errorCodes } from '../../src/base/errors.ts';
import type { Random } from '../world/random.ts';
import type { Members } from './members.ts';
import type { SimProcess } from './process.ts';

/** How one node reaches the arbiter. */
export interface Reach {
  delayMs: number;
  /** How likely the request of an operation, or its answer, is lost. */
  lose: number;
  cut: boolean;
}

const timeoutMs = 800;

export class SimArbiter implements Arbiter {
  private readonly process: SimProcess;
  private readonly inner: MemoryArbiter;
  private readonly members: Members;
  private readonly reach: Reach;
  private readonly random: Random;
  private readonly changed: () => void;

  constructor(
    process: SimProcess,
    { terms, members }: { terms: Terms; members: Members },
    options: { reach: Reach; random: Random; changed: () => void },
  ) {
    this.process = process;
    this.inner = new MemoryArbiter(terms);
    this.members = members;
    this.reach = options.reach;
    this.random = options.random;
    this.changed = options.changed;
  }

  read(vm: string): Promise<TermRecord | undefined> {
    return this.ask(() => this.inner.read(vm));
  }

  claim(vm: string, expectedTerm: number, next: Roles): Promise<ClaimResult> {
    return this.ask(() => this.inner.claim(vm, expectedTerm, next));
  }

  probe(vm: string): Promise<void> {
    return this.ask(() => this.inner.probe(vm));
  }

  async close(): Promise<void> {}

  private ask<T>(operation: () => Promise<T>): Promise<T> {
    const { process, reach, random, members, changed } = this;
    return askMembers(process, { reach, random, members, changed }, operation);
  }
}

/** How somebody's operations get to the members, and what is told when one may have changed something. */
export interface Asking {
  reach: Reach;
  random: Random;
  members: Members;
  changed?: () => void;
}

export function askMembers<T>(process: SimProcess, asking: Asking, operation: () => Promise<T>): Promise<T> {
  const { reach, random, members, changed = () => undefined } = asking;
  const { promise, resolve, reject } = Promise.withResolvers<T>();
  const oneWayMs = () => reach.delayMs * (0.5 + random.next());
  const fail = () =>
    void process.clock.after(timeoutMs, () => reject(new ColoError(errorCodes.arbiter, 'no answer (simulated)')));
  if (!process.alive) return promise;
  const { answers, outages } = members;
  const isLost = () => !answers || members.outages !== outages;
  process.schedule.after(oneWayMs(), () => {
    if (reach.cut || random.chance(reach.lose)) {
      fail();
      return;
    }
    if (isLost()) {
      fail();
      if (answers) members.inherit(() => void operation().then(changed, () => undefined));
      return;
    }
    const done = operation().then(
      (value) => () => resolve(value),
      (error: unknown) => () => reject(error instanceof Error ? error : new Error(String(error))),
    );
    void done.then((answer) => {
      changed();
      if (reach.cut || random.chance(reach.lose)) fail();
      else process.schedule.after(oneWayMs(), () => (isLost() ? fail() : process.run(answer)));
    });
  });
  return promise;
}
