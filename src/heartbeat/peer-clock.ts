// Where a moment of the peer's clock is on one's own, from its beats, pure.
//
//    peer's clock   ──── sentAt ───────────────►      own clock  ──────── arrived ──►     arrived - sentAt =
//                                                                 difference of the clocks + what the beat was late
//
// A beat is late by the network, and by the processes of both sides that a busy host lets wait; never early. So of the
// newest ones the one with the least difference was the least late, and its difference is taken: a single message that
// comes late, such as the one that names the moment, then costs nothing. Old ones are forgotten, since clocks drift.

import { peerClockBeats } from './limits.ts';

export class PeerClock {
  private readonly differences: number[] = [];

  /** A beat that was sent at `sentAt` of the peer's clock has arrived. */
  heard(sentAt: number, arrived: number): void {
    this.differences.push(arrived - sentAt);
    if (this.differences.length > peerClockBeats) this.differences.shift();
  }

  /** The peer's moment on one's own clock; undefined while no beat has come. */
  here(moment: number): number | undefined {
    if (this.differences.length === 0) return undefined;
    return moment + this.differences.reduce((least, difference) => Math.min(least, difference));
  }
}
