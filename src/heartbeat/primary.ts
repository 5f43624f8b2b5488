// The beating side, pure: sends a beat every period, and keeps its lease from the echoes.
//
//    tick(now) ─► ports.send(beat)         echo from the link ─► receive(type, payload, now) ─► lease, detector
//
// Its owner calls `tick` about every askPeriodMs, `receive` for each message, and `closed` when the link ends.

import { Detector } from './detector.ts';
import { Lease } from './lease.ts';
import { beatPeriodMs, leaseMs } from './limits.ts';
import { beatTypes, encodeBeat, parseBeat } from './message.ts';
import type { Tolerance } from './tolerance.ts';

export interface BeatPorts {
  send(type: number, payload: Uint8Array): void;
}

export class HeartbeatPrimary {
  readonly lease = new Lease({ leaseMs });
  readonly detector: Detector;
  private readonly ports: BeatPorts;
  private readonly term: number;
  private sequence = 0;
  private nextBeatAt = Number.NEGATIVE_INFINITY;

  constructor(ports: BeatPorts, options: { term: number; now: number; tolerance: Tolerance }) {
    this.ports = ports;
    this.term = options.term;
    this.detector = new Detector({ periodMs: beatPeriodMs, tolerance: options.tolerance });
    this.detector.begin(options.now);
  }

  tick(now: number): void {
    if (now < this.nextBeatAt) return;
    this.nextBeatAt = now + beatPeriodMs;
    this.sequence = (this.sequence + 1) >>> 0;
    this.ports.send(beatTypes.beat, encodeBeat({ sequence: this.sequence, term: this.term, sentAt: now }));
  }

  /** Takes a message of the peer; false when it is none of this link, and the link is to be closed. */
  receive(type: number, payload: Uint8Array, now: number): boolean {
    const beat = type === beatTypes.echo ? parseBeat(payload) : undefined;
    if (beat === undefined || !this.lease.echoed(beat.sentAt, now)) return false;
    this.detector.beat(now);
    return true;
  }

  closed(): void {
    this.lease.revoke();
  }
}
