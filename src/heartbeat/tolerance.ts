// How much silence of the peer is borne before it is suspected. Pure: time is an argument.
//
//    timeout = 2 × the largest gap of the last minute, at least toleranceFloorMs, at most toleranceCeilingMs
//
// A quiet host answers every beat within milliseconds: there the floor rules, and a silent host is noticed as soon as
// its lease is over. A starved one answers late now and then. A suspicion of it would be wrong, and a wrong one costs
// the protection for as long as the RAM is copied again: so after the first late answers the peer is given more time,
// and after a minute without any it has to be as quick as before. The lease knows nothing of this: what is borne here
// is only how long a primary stands with its gate shut, and how much later than allowed a secondary takes over.
//
// What counts as a gap:
//   - between two signs of life, less what this process itself stood still (detector.ts);
//   - for which this process itself stood still: who is starved of its processor probably has starved neighbours;
//   - the timeout at which a peer was suspected that was back right after: nobody knows how long it would have taken.
// A gap beyond the ceiling is none of these but a stop, a sleep or a cut cable, and teaches nothing.

import {
  backWithinMs,
  gapFactor,
  toleranceBuckets,
  toleranceCeilingMs,
  toleranceFloorMs,
  toleranceMemoryMs,
} from './limits.ts';

const bucketMs = toleranceMemoryMs / toleranceBuckets;

export class Tolerance {
  /** Suspicions for silence of a peer that was there all the time. */
  wrongSuspicions = 0;
  /**
   * Largest gap of each stretch of bucketMs, in a ring; `newest` is the number of the stretch that was written last.
   */
  private readonly largest = new Float64Array(toleranceBuckets);
  private newest = 0;
  private suspected: { peer: string; at: number; timeoutMs: number } | undefined;

  /** Silence that raises a suspicion now. */
  timeoutMs(now: number): number {
    return Math.min(toleranceCeilingMs, Math.max(toleranceFloorMs, this.largestGapMs(now) * gapFactor));
  }

  /** The largest gap that is still remembered. */
  largestGapMs(now: number): number {
    this.turn(now);
    return Math.max(...this.largest);
  }

  /** A gap was seen. */
  gap(gapMs: number, now: number): void {
    if (!(gapMs <= toleranceCeilingMs)) return;
    this.turn(now);
    const at = this.newest % toleranceBuckets;
    this.largest[at] = Math.max(this.largest[at] ?? 0, gapMs);
  }

  /** This peer is suspected for its silence. */
  suspects(peer: string, now: number): void {
    this.suspected = { peer, at: now, timeoutMs: this.timeoutMs(now) };
  }

  /** This peer is paired with again: when it comes so soon, it had been there all the time. */
  paired(peer: string, now: number): void {
    const { suspected } = this;
    if (suspected?.peer !== peer) return;
    this.suspected = undefined;
    if (now - suspected.at > backWithinMs) return;
    this.wrongSuspicions += 1;
    this.gap(suspected.timeoutMs, now);
  }

  /** Forgets what is older than the memory. A clock that goes back changes nothing. */
  private turn(now: number): void {
    const bucket = Math.floor(now / bucketMs);
    const passed = Math.min(toleranceBuckets, bucket - this.newest);
    for (let step = 1; step <= passed; step += 1) this.largest[(bucket - passed + step) % toleranceBuckets] = 0;
    this.newest = Math.max(this.newest, bucket);
  }
}
