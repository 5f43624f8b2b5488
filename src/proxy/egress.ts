// What leaves: counted by why it may, and through the gate.

import type { FrameClass, HeldSince } from './compare/sink.ts';
import type { PrimaryCounters } from './counters.ts';
import { Gate } from './gate.ts';
import { HoldTimes } from './hold-times.ts';

interface EgressPorts {
  toNetwork(frame: Uint8Array): void;
  confirm(ids: number[]): void;
}

export class Egress {
  /** Why what leaves now may: the SVM has said it too, a checkpoint covers it, or there is no other node. */
  how: 'match' | 'commit' | 'alone' = 'alone';
  now = 0;
  readonly gate: Gate;
  readonly times = new HoldTimes();
  private readonly ports: EgressPorts;
  private readonly count: PrimaryCounters;
  private readonly oneId = [0];

  constructor(ports: EgressPorts, count: PrimaryCounters) {
    this.ports = ports;
    this.count = count;
    this.gate = new Gate((frame, id) => this.send(frame, id));
  }

  leave(frame: Uint8Array, frameClass: FrameClass, held: HeldSince, id?: number): void {
    const count = this.count;
    const isData = frameClass === 'data';
    if (isData) this.times.record(held, this.now);
    if (frameClass !== 'part') {
      if (this.how === 'match') {
        count.framesByMatch += 1;
        if (isData) count.dataByMatch += 1;
      } else if (this.how === 'commit') {
        count.framesByCommit += 1;
        if (isData) count.dataByCommit += 1;
      } else {
        count.framesAlone += 1;
        if (isData) count.dataAlone += 1;
      }
    }
    this.gate.pass(frame, id);
  }

  private send(frame: Uint8Array, id: number | undefined): void {
    this.count.egressBytes += frame.length;
    this.ports.toNetwork(frame);
    if (id === undefined) return;
    this.oneId[0] = id;
    this.ports.confirm(this.oneId);
  }
}
