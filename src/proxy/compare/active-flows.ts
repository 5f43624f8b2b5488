// The flows in which something waits. Only these are looked at when time passes, or when everything must leave: a proxy
// may have a hundred thousand flows, and few of them wait.

import type { ActiveFlow } from './sink.ts';

export class ActiveFlows {
  readonly all: ActiveFlow[] = [];

  add(flow: ActiveFlow): void {
    flow.activeIndex = this.all.length;
    this.all.push(flow);
  }

  /** The last one takes its place. */
  remove(flow: ActiveFlow): void {
    const last = this.all.pop();
    if (last !== undefined && last !== flow) {
      last.activeIndex = flow.activeIndex;
      this.all[last.activeIndex] = last;
    }
    flow.activeIndex = -1;
  }
}
