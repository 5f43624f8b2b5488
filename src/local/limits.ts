// Bounds of what is started on this machine for tests and demonstrations, and what happens at each.

/** Turns of speaking that are kept of a bridge. Beyond: no further turn is begun, the last one kept goes on. */
export const turnsMax = 256;

/** Announcements that are kept of a bridge. Later ones are not. */
export const announcementsMax = 4096;

/** How long a member of etcd may take until it answers. Beyond: the start fails, with its last words. */
export const etcdStartTimeoutMs = 120_000;

/** A node that is told to stop and does not is killed after this time. */
export const stopTimeoutMs = 8000;

/** How long a lab's etcd may be without a leader. Beyond: whoever looks for it is told. */
export const leaderTimeoutMs = 60_000;

/** How long a node may take to say which QEMU is its own: the host may be starved. Beyond: whoever asked is told. */
export const statusTimeoutMs = 30_000;

/**
 * How long the folder of all running VMs is waited for, which one process at a time changes. Beyond: a start is refused; an
 * end removes what is its own all the same.
 */
export const runRootLockMsMax = 60_000;
export const runRootPollMs = 10;

/** Tries to remove a run's folder, into which a process that is ending may still write. Beyond: the end fails. */
export const removalTriesMax = 20;
