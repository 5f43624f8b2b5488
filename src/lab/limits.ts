// Bounds of the hosts that a lab makes on this machine, and what happens at each.

/** Turns of speaking that are kept of a bridge. Beyond: no further turn is begun, the last one kept goes on. */
export const turnsMax = 256;

/** Announcements that are kept of a bridge. Later ones are not. */
export const announcementsMax = 4096;

/** How long a member of etcd may take until it answers. Beyond: the start fails, with its last words. */
export const etcdStartTimeoutMs = 120_000;

/** How long a lab's etcd may be without a leader. Beyond: whoever looks for it is told. */
export const leaderTimeoutMs = 60_000;
