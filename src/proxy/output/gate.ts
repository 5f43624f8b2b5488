// The release gate: the last place before the network. Closed, nothing leaves; what was allowed to leave waits here. It
// stays allowed: either the SVM has produced it, or a checkpoint taken after it is safe with the secondary, and neither
// can become untrue.

import { Fifo } from '../../base/fifo.ts';
import { proxyLimits } from '../limits.ts';

/** The SVM's frames that a frame was matched with, where the secondary wants to know. */
export type MatchedIds = number | readonly number[] | undefined;

interface Waiting {
  frame: Uint8Array;
  ids: MatchedIds;
}

export class Gate {
  open = true;
  bytes = 0;
  dropped = 0;
  private readonly waiting = new Fifo<Waiting>();
  private readonly send: (frame: Uint8Array, ids: MatchedIds) => void;

  constructor(send: (frame: Uint8Array, ids: MatchedIds) => void) {
    this.send = send;
  }

  get isEmpty(): boolean {
    return this.waiting.length === 0;
  }

  get isFull(): boolean {
    return this.bytes > proxyLimits.gatedBytesMax;
  }

  pass(frame: Uint8Array, ids: MatchedIds): void {
    if (this.open) this.send(frame, ids);
    else if (this.bytes > proxyLimits.gatedBytesMax * 2) this.dropped += 1;
    else {
      this.waiting.push({ frame: Buffer.from(frame), ids });
      this.bytes += frame.length;
    }
  }

  set(open: boolean): void {
    this.open = open;
    while (this.open) {
      const next = this.waiting.shift();
      if (next === undefined) return;
      this.bytes -= next.frame.length;
      this.send(next.frame, next.ids);
    }
  }

  frames(): Uint8Array[] {
    return [...this.waiting].map(({ frame }) => frame);
  }
}
