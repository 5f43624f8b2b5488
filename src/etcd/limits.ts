// Limits of talking to etcd, and what happens at each of them.

/** How long asking etcd may take, all its members together. Beyond it the outcome is unknown and must be read. */
export const etcdAskTimeoutMs = 3_000;

/** A member of etcd that is silent for so long is not waited for alone: the next one is asked beside it. */
export const etcdNextAfterMs = 150;

/**
 * An answer of etcd that the caller gives no bound of its own. A longer one is not read to its end, and counts as none.
 */
export const etcdAnswerBytesMax = 64 * 1024;
