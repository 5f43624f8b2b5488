// Virtual time: a queue of events ordered by (time, sequence). After each event everything that it made due at once
// (promises, microtasks) runs until nothing is left, so that the code of a node, which awaits, sees one event at a
// time.
//
// How: node's own tick callback, the function that runs between two events of a real event loop. Called from outside
// any microtask it returns when all of them have run; that costs some 50 ns when there are none. It takes no part of
// real time, so equal seeds give equal runs. `run` must therefore never be called from a promise.

/** An event that can still be called off. */
export interface Due {
  time: number;
  sequence: number;
  action: (() => void) | undefined;
}

const runMicrotasks: unknown = Reflect.get(process, '_tickCallback');

function settlePromises(): void {
  if (typeof runMicrotasks !== 'function') throw new Error('this Node has no tick callback to run promises with');
  Reflect.apply(runMicrotasks, process, []);
}

export class Schedule {
  now = 0;
  /** Events run so far. */
  count = 0;
  private sequence = 0;
  private readonly heap: Due[] = [];

  get length(): number {
    return this.heap.length;
  }

  at(time: number, action: () => void): Due {
    this.sequence += 1;
    const due: Due = { time: Math.max(time, this.now), sequence: this.sequence, action };
    this.push(due);
    return due;
  }

  after(delayMs: number, action: () => void): Due {
    return this.at(this.now + delayMs, action);
  }

  /** Runs the next event; false when there is none before `until`. */
  step(until: number): boolean {
    const next = this.heap[0];
    if (next === undefined || next.time > until) {
      this.now = Math.max(this.now, until);
      return false;
    }
    this.pop();
    this.now = next.time;
    const { action } = next;
    if (action === undefined) return true;
    this.count += 1;
    action();
    settlePromises();
    return true;
  }

  /** Runs what was made due outside of any event. */
  settle(): void {
    settlePromises();
  }

  private push(due: Due): void {
    const { heap } = this;
    let at = heap.length;
    heap.push(due);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      const above = heap[parent] as Due;
      if (!isBefore(due, above)) break;
      heap[at] = above;
      at = parent;
    }
    heap[at] = due;
  }

  private pop(): void {
    const { heap } = this;
    const last = heap.pop() as Due;
    const { length } = heap;
    if (length === 0) return;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= length) break;
      if (child + 1 < length && isBefore(heap[child + 1] as Due, heap[child] as Due)) child += 1;
      if (!isBefore(heap[child] as Due, last)) break;
      heap[at] = heap[child] as Due;
      at = child;
    }
    heap[at] = last;
  }
}

function isBefore(left: Due, right: Due): boolean {
  return left.time < right.time || (left.time === right.time && left.sequence < right.sequence);
}
