// Bounds of the user-space switch, and what happens at each.

/** Addresses that a switch knows. Beyond: all are forgotten and learned anew, and frames are flooded meanwhile. */
export const addressesMax = 4096;

/** Connections to one switch. A further one is closed at once. */
export const portsMax = 64;

/** Turns of speaking that are kept for one address. Beyond: no further turn is begun, the last one kept goes on. */
export const turnsMax = 4096;

/** One write is heard in one go; this much is the listener's own matter. What takes longer counts as a turn. */
export const lateMsMax = 100;

/** A gateway that ended and does not start again is tried again after this. */
export const gatewayRetryMs = 1000;
