// Times of the heartbeat, and the arithmetic of the longest gap a client may see when the primary's host falls silent.
//
//    last echo before the silence ──── leaseMs 400 ──── marginMs 50 ──┬─ asked every 10 ─┬─ takeover <= 200 ─►
//                                                                     450                460              660 <= 700
//
// The takeover (claiming the term, applying a staged checkpoint, opening the uplink, announcing) has what is left.
// Eight beats fit into one lease, so seven late or lost ones in a row neither end a lease nor raise a suspicion.
// On a host that was starved within the last minute the suspicion comes later, at toleranceCeilingMs at the latest
// (tolerance.ts), and the gap is so much longer.

/** Between two beats of the primary. */
export const beatPeriodMs = 50;

/**
 * Least silence after which a peer is suspected. Equal to the lease: suspecting earlier would only mean waiting longer.
 */
export const toleranceFloorMs = 400;

/** Most silence that is borne, however starved the hosts are. A longer gap is no starvation, and teaches nothing. */
export const toleranceCeilingMs = 1500;

/**
 * What is borne is this often the largest gap seen lately: a gap that is twice as long as any before is none of them.
 */
export const gapFactor = 2;

/** How long a gap is remembered, and in how many stretches of time; a stretch is forgotten as a whole. */
export const toleranceMemoryMs = 60_000;
export const toleranceBuckets = 12;

/**
 * A peer that was suspected for its silence and is back within this time had been there; later, it may have been dead.
 */
export const backWithinMs = 5000;

/** How long an echoed beat lets the primary speak, counted from when that beat was sent. */
export const leaseMs = 400;

/**
 * What the secondary waits beyond the lease. It covers clocks of unequal rate (400 ms at 1,000 ppm, far worse than any
 * working clock, are 0.4 ms) and the time between the primary's look at its lease and the frame's leaving.
 */
export const takeoverMarginMs = 50;

/** How often a suspicion and a takeover are asked for. */
export const askPeriodMs = 10;

/** A gap between two questions from which on it was this process that stood still, as a multiple of the beat period. */
export const stallPeriods = 2;

/** Newest beats that tell the difference of two hosts' clocks: ten seconds, in which clocks drift by 1 ms at most. */
export const peerClockBeats = 200;
