// Bounds of the decisions of a pair and of a placement, and what happens at each.

/**
 * Rounds of the initial copy. After the last one the checkpoint is taken, however much is left: its pause is longer
 * then.
 */
export const roundsMax = 8;

/**
 * The last round is an ordinary checkpoint: below this many pages it costs an ordinary pause, and no further round is
 * made.
 */
export const smallEnoughPages = 1000;

/**
 * How long a secondary that was asked to take over has for it; longer than its claim and the announcement need. Then
 * the primary claims the term for itself.
 */
export const offerMs = 1000;

/** Refused or failed checkpoints in a row after which the secondary is given up. */
export const refusalsMax = 3;

/** A child that ended is started again after this, doubled each time up to the maximum. */
export const restartMs = 500;
export const restartMsMax = 30_000;

/** A node whose child ended this often in a row is no good for this VM while another one is there. */
export const failuresMax = 4;

/**
 * A primary that was alone for so long does not reach its secondary's node, or is not reached: another one is tried.
 */
export const aloneMs = 60_000;

/** A planned failover that did nothing is asked for again after this. */
export const failoverEveryMs = 5_000;

/** Both nodes have been waiting with empty hands for this long: the VM runs nowhere, and is booted anew. */
export const idleMs = 5_000;

/**
 * A secondary needs the guest's RAM and a shadow of it, and a bit for the processes. A node with less is not chosen.
 */
export const secondaryRamFactor = 2;
export const spareBytes = 128 * 2 ** 20;

/**
 * An uplink that is gone for so long, while that of the peer is well for so long, is a reason to hand over: a device
 * that only bounces is not.
 */
export const uplinkSickMs = 1000;
