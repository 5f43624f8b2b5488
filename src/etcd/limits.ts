// Limits of talking to etcd, and what happens at each of them.

/** How long one member of etcd may take, before the next one is asked. A leader's election takes about a second. */
export const etcdRequestTimeoutMs = 1_500;

/** An answer of etcd that the caller gives no bound of its own. A longer one is not read to its end, and counts as none. */
export const etcdAnswerBytesMax = 64 * 1024;
