// Times of the heartbeat, and the arithmetic of the longest gap a client may see when the primary's host falls silent.
//
//    last echo before the silence ──── leaseMs 400 ──── marginMs 50 ──┬─ asked every 10 ─┬─ takeover <= 200 ─►
//                                                                     450                460              660 <= 700
//
// The takeover (claiming the term, applying a staged checkpoint, opening the uplink, announcing) has what is left.
// Eight beats fit into one lease, so seven late or lost ones in a row neither end a lease nor raise a suspicion.

/** Between two beats of the primary. */
export const beatPeriodMs = 50;

/** Silence after which a peer is suspected. Equal to the lease: suspecting earlier would only mean waiting longer. */
export const suspectAfterMs = 400;

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
