// What leaves: counted by why it may, and through the gate.
//
// The secondary forgets its copy of a datagram when the primary's has left, and it has left when it has been written:
// until then it waits in the uplink, which may lose it (a lease that ends, a kernel without room, a device that is
// gone).

import { Fifo } from '../../base/fifo.ts';
import type { Progress } from '../../netdev/endpoint.ts';
import type { FrameClass, HeldSince } from '../compare/sink.ts';
import type { PrimaryCounters } from '../counters.ts';
import { Gate, type MatchedIds } from './gate.ts';
import { HoldTimes } from './hold-times.ts';

interface EgressPorts {
  toNetwork(frame: Uint8Array): void;
  confirm(ids: number[]): void;
  readonly progress: Progress;
}

export class Egress {
  /** Why what leaves now may: the SVM has said it too, a checkpoint covers it, or there is no other node. */
  how: 'match' | 'commit' | 'alone' = 'alone';
  now = 0;
  readonly gate: Gate;
  readonly times = new HoldTimes();
  private readonly ports: EgressPorts;
  private readonly count: PrimaryCounters;
  /** The SVM's frames whose equals wait in the uplink, and the places of these in what it has taken. */
  private readonly ids = new Fifo<number>();
  private readonly places = new Fifo<number>();
  private lost = 0;
  private readonly oneId = [0];
  private readonly settledIds: number[] = [];

  constructor(ports: EgressPorts, count: PrimaryCounters) {
    this.ports = ports;
    this.count = count;
    this.lost = ports.progress.lost;
    this.gate = new Gate((frame, ids) => this.send(frame, ids));
  }

  leave(frame: Uint8Array, frameClass: FrameClass, held: HeldSince, ids?: MatchedIds): void {
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
    this.gate.pass(frame, ids);
  }

  private send(frame: Uint8Array, ids: MatchedIds): void {
    this.count.egressBytes += frame.length;
    const { progress } = this.ports;
    // A loss from before is none of this frame's.
    if (ids !== undefined && progress.lost !== this.lost) this.settled();
    this.ports.toNetwork(frame);
    if (ids === undefined) return;
    const { taken } = progress;
    const isWritten = progress.settled >= taken && progress.lost === this.lost;
    if (typeof ids === 'number' && isWritten && this.ids.length === 0) {
      this.oneId[0] = ids;
      this.ports.confirm(this.oneId);
      return;
    }
    if (typeof ids === 'number') this.await(ids, taken);
    else for (const id of ids) this.await(id, taken);
    this.settled();
  }

  private await(id: number, place: number): void {
    this.ids.push(id);
    this.places.push(place);
  }

  /** The uplink has got on: what has been written is confirmed. */
  settled(): void {
    const { settled, lost } = this.ports.progress;
    if (lost !== this.lost) {
      // One of those that wait, nobody knows which: the secondary keeps all of them.
      this.lost = lost;
      this.ids.clear();
      this.places.clear();
      return;
    }
    const { settledIds } = this;
    settledIds.length = 0;
    while ((this.places.peek() ?? Number.POSITIVE_INFINITY) <= settled) {
      this.places.shift();
      settledIds.push(this.ids.shift() ?? 0);
    }
    if (settledIds.length > 0) this.ports.confirm(settledIds);
  }
}
