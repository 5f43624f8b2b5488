// Bounds of the user-space switch, and what happens at each.

/**
 * Addresses that a switch knows. Beyond: the one that has been silent for longest is forgotten, and frames for it are
 * flooded.
 */
export const addressesMax = 4096;

/** An address that has been silent for so long may be anywhere: frames for it are flooded (IEEE 802.1D: 300 s). */
export const addressAgeMs = 300_000;

/** Connections to one switch. A further one is closed at once. */
export const portsMax = 64;

/** Turns of speaking that are kept for one address. Beyond: no further turn is begun, the last one kept goes on. */
export const turnsMax = 4096;

/** One write is heard in one go; this much is the listener's own matter. What takes longer counts as a turn. */
export const lateMsMax = 100;

/** A gateway that ended and does not start again is tried again after this. */
export const gatewayRetryMs = 1000;
