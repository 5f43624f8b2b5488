// Drives a state machine of controller/ by events from outside: one queue, each event handled to its end before the
// next.
//
//    postLater ─► queue ─► (microtask) ─┐
//                                       ├─► core.on(event) ─► log of the move ─► noted ─► perform each action
//    postNow ───► queue ─► (at once) ───┘
//
// There are two orders, and who posts says which one is meant. `postLater`: never inside the callback that brought the
// event, so that this callback ends in the state that it began in. `postNow`: before the call returns, so that what
// comes behind the event on the same link finds it done. An event that is posted while one is handled waits for that
// one in both orders, and a queue that waits for its microtask is not overtaken.

import { Fifo } from '../base/fifo.ts';
import type { Log } from '../base/log.ts';

/** A state machine: an event in, actions out. */
export interface Machine<Event, Action> {
  readonly state: { kind: string };
  on(event: Event): Action[];
}

export interface DriverParts<Event, Action> {
  machine: Machine<Event, Action>;
  perform: (action: Action) => void;
  /** The machine has taken the event; its actions are still to be performed. */
  noted?: (event: Event, before: string) => void;
  log: Pick<Log, 'info'>;
  /** What the machine is called in the log. */
  name: string;
}

export class Driver<Event extends { kind: string }, Action> {
  private readonly parts: DriverParts<Event, Action>;
  private readonly queue = new Fifo<Event>();
  /** The queue is being handled, or will be in a microtask. */
  private isTaken = false;

  constructor(parts: DriverParts<Event, Action>) {
    this.parts = parts;
  }

  /** Queues the event; the queue is handled when the callback of now has returned. */
  postLater(event: Event): void {
    this.queue.push(event);
    if (this.isTaken) return;
    this.isTaken = true;
    queueMicrotask(() => this.run());
  }

  /** Queues the event and handles the queue before returning, unless somebody is about to. */
  postNow(event: Event): void {
    this.queue.push(event);
    if (this.isTaken) return;
    this.isTaken = true;
    this.run();
  }

  private run(): void {
    try {
      for (let event = this.queue.shift(); event !== undefined; event = this.queue.shift()) this.handle(event);
    } finally {
      this.isTaken = false;
    }
  }

  private handle(event: Event): void {
    const { machine, noted, perform } = this.parts;
    const before = machine.state.kind;
    const actions = machine.on(event);
    this.logMove(event, before);
    noted?.(event, before);
    for (const action of actions) perform(action);
  }

  private logMove(event: Event, before: string): void {
    const { machine, log, name } = this.parts;
    const { kind } = machine.state;
    if (kind === before) return;
    const why = 'why' in event ? event.why : undefined;
    log.info({ from: before, to: kind, on: event.kind, why }, name);
  }
}
