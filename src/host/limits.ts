// Limits of src/host, and what happens at each.

/** A helper command that takes longer is killed; the caller gets an error that names it. */
export const commandTimeoutMs = 300_000;

/** A helper command that says more is killed; the caller gets an error that names it. */
export const commandOutputBytesMax = 64 * 1024 * 1024;

/** A probe of the host that takes longer counts as "does not work". */
export const probeTimeoutMs = 5_000;

/** Whoever waits longer for another colo process to finish the same preparation gives up with an error. */
export const lockTimeoutMs = 600_000;
