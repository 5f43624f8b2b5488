// Bounds of what is started on this machine for tests and demonstrations, and what happens at each.

/** A node that is told to stop and does not is killed after this time. */
export const stopTimeoutMs = 8000;

/** How long a node may take to say which QEMU is its own: the host may be starved. Beyond: whoever asked is told. */
export const statusTimeoutMs = 30_000;

/**
 * How long the folder of all running VMs is waited for, which one process at a time changes. Beyond: a start is
 * refused; an end removes what is its own all the same.
 */
export const runRootLockMsMax = 60_000;
export const runRootPollMs = 10;

/** Tries to remove a run's folder, into which a process that is ending may still write. Beyond: the end fails. */
export const removalTriesMax = 20;
