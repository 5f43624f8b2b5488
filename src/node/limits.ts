// Bounds and periods of a node's roles, and what happens at each bound.

/** Frames of the network that wait for the few milliseconds of a capture. Beyond: dropped, as by a full ring, and counted. */
export const ingressHeldFramesMax = 4096;

/** Ingress of the last moments that is repeated to the secondary when a capture could not wait for QEMU to take it. */
export const replayWindowMs = 10;

/** How long a capture or an apply waits until QEMU has read what it was given. Beyond: the last moments are repeated. */
export const settleMs = 3;

/**
 * Frames of the network that arrive at the secondary and may have missed the primary, and for how long they are kept. The
 * oldest leave; what nobody got, TCP sends again.
 */
export const earlyFramesMax = 2048;
export const earlyMs = 1000;

/** A peer that is not protecting yet is given up after this silence: it may be starting its VM, or take in all RAM. */
export const unprotectedSilenceMs = 20_000;

/** A text that a peer sends (a reason); a longer one is cut. */
export const textBytesMax = 4096;

/** The roles look at the time this often: timeouts of the proxy, beats, due checkpoints. */
export const tickMs = 5;

/** Dirty pages are counted this often: a count costs about as much as a scan. */
export const countDirtyMs = 50;

/** A hanging QEMU is looked for this often. */
export const pingMs = 1000;

/** Between two rounds of asking the other nodes whether one can be the secondary. */
export const reconnectMs = 300;

/** A changed list of the guest's addresses is told to the secondary this often at most: a guest may change it at will. */
export const addressesEveryMs = 50;
