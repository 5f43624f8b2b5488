// The release gate: the last place before the network. Closed, nothing leaves; what was allowed to leave waits here. It
// stays allowed: either the SVM has produced it, or a checkpoint taken after it is safe with the secondary, and neither
// can become untrue.

import { Fifo } from '../base/fifo.ts';
import { proxyLimits } from './limits.ts';

interface Waiting {
  frame: Uint8Array;
  id: number | undefined;
}

export class Gate {
  open = true;
  bytes = 0;
  dropped = 0;
  private readonly waiting = new Fifo<Waiting>();
  private readonly send: (frame: Uint8Array, id: number | undefined) => void;

  constructor(send: (frame: Uint8Array, id: number | undefined) => void) {
    this.send = send;
  }

  get isEmpty(): boolean {
    return this.waiting.length === 0;
  }

  get isFull(): boolean {
    return this.bytes > proxyLimits.gatedBytesMax;
  }

  pass(frame: Uint8Array, id: number | undefined): void {
    if (this.open) this.send(frame, id);
    else if (this.bytes > proxyLimits.gatedBytesMax * 2) this.dropped += 1;
    else {
      this.waiting.push({ frame: Buffer.from(frame), id });
      this.bytes += frame.length;
    }
  }

  set(open: boolean): void {
    this.open = open;
    while (this.open) {
      const next = this.waiting.shift();
      if (next === undefined) return;
      this.bytes -= next.frame.length;
      this.send(next.frame, next.id);
    }
  }

  frames(): Uint8Array[] {
    return [...this.waiting].map(({ frame }) => frame);
  }
}
