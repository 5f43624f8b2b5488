// The echoing side, pure: returns every beat, suspects silence, and knows when the right it lent has run out.
//
// Its owner calls `receive` for each message, `closed` when the link ends, and asks `mayTakeOver` about every
// askPeriodMs. A takeover then begins with `withhold` and needs the arbiter.

import { Detector } from './detector.ts';
import { Grant } from './lease.ts';
import { beatPeriodMs, leaseMs, takeoverMarginMs } from './limits.ts';
import { beatTypes, parseBeat } from './message.ts';
import { PeerClock } from './peer-clock.ts';
import type { BeatPorts } from './primary.ts';
import type { Tolerance } from './tolerance.ts';

export class HeartbeatSecondary {
  readonly grant = new Grant({ leaseMs, marginMs: takeoverMarginMs });
  readonly detector: Detector;
  readonly peerClock = new PeerClock();
  private readonly ports: BeatPorts;
  private readonly term: number;
  private linkClosed = false;
  private withheld = false;

  /** `term`: the primary's, as its hello said it. */
  constructor(ports: BeatPorts, options: { now: number; tolerance: Tolerance; term: number }) {
    this.ports = ports;
    this.term = options.term >>> 0;
    this.detector = new Detector({ periodMs: beatPeriodMs, tolerance: options.tolerance });
    this.detector.begin(options.now);
  }

  /** Takes a message of the peer; false when it is no beat of this term, and the link is to be closed. */
  receive(type: number, payload: Uint8Array, now: number): boolean {
    const beat = type === beatTypes.beat ? parseBeat(payload) : undefined;
    if (beat?.term !== this.term) return false;
    this.detector.beat(now);
    this.peerClock.heard(beat.sentAt, now);
    if (this.withheld) return true;
    this.grant.echoSent(now);
    this.ports.send(beatTypes.echo, payload);
    return true;
  }

  /**
   * Lends nothing more. To be called before the arbiter is asked: a beat that arrives while a claim is on its way must
   * not give the primary a lease that outlasts the takeover.
   */
  withhold(): void {
    this.withheld = true;
  }

  closed(): void {
    this.linkClosed = true;
    this.grant.closed();
  }

  /** The primary is gone or silent, and what it was lent has run out. */
  mayTakeOver(now: number): boolean {
    const suspected = this.detector.suspects(now) || this.linkClosed;
    return suspected && this.grant.takeoverAllowed(now);
  }
}
