// Limits and waits of the service, and what happens at each of them.

/** A node that has not announced itself for this long is gone: its VMs' other nodes look for a new secondary. */
export const membershipMs = 6_000;

/** A node announces itself this often, and at once when something of it changed. */
export const announceEveryMs = 2_000;

/** The service looks at its children, the registry and what is to be done this often. */
export const roundMs = 500;

/** A child that does not answer for its status is shown as it was last; it is never killed for that. */
export const statusTimeoutMs = 1_000;

/** A child that was told to stop gets SIGKILL after this. */
export const stopTimeoutMs = 10_000;

/** A child that has run for this long counts as sound: its earlier ends are forgotten. */
export const soundMs = 60_000;

/** How long another node may take to answer a forwarded request. Then it is named as silent. */
export const forwardTimeoutMs = 5_000;

/** A checkpoint may take longer, since it answers when it is applied. */
export const checkpointTimeoutMs = 30_000;

/** VMs with a child on one node. Further ones are not started, and `colo ps` says so. */
export const childrenMax = 64;

/** Characters of what a child says of its state in the registry. The rest is cut off; its log has it all. */
export const whyCharactersMax = 300;

/**
 * Bytes of what a child wrote besides its log, from its end: looked at for why it ended. An older reason is not found.
 */
export const lastWordsBytesMax = 8 * 1024;

/** A stream of live updates says at least this often that it lives, so that a reader or a proxy does not give it up. */
export const streamPingMs = 15_000;

/**
 * One thing that a node looks at of itself for `colo doctor --cluster`. What takes longer is shown as not answering.
 */
export const factTimeoutMs = 3_000;

/** A certificate that is good for fewer days than this is named by `colo doctor --cluster`. */
export const certificateDaysLow = 30;

/** By how much a host's clock may differ before `colo doctor --cluster` names it. */
export const clockLagMsMax = 500;

/** How long a request to another node may take before `colo doctor --cluster` names it. */
export const nodeLagMsMax = 50;

/**
 * The size of an etcd's data: `colo doctor --cluster` names a larger one. Its quota is 2 GiB unless told otherwise, and
 * then it takes nothing.
 */
export const etcdBytesHigh = 1.5 * 2 ** 30;

/**
 * TLS handshakes at the API: of one source at once and per second, of all sources that have shown no certificate of the
 * cluster, and begun at the same time. Who comes beyond is reset at once and counted.
 */
export const callDoorLimits = {
  burst: 200,
  perSecond: 100,
  strangersBurst: 200,
  strangersPerSecond: 100,
  atOnce: 64,
} as const;

/** VMs that have left a node and whose logs and consoles are kept there. Those that were written longest ago go. */
export const oldLogsMax = 64;

/** Connections to the plain door of monitoring at one time. Further ones are closed at once. */
export const monitorConnectionsMax = 32;

/**
 * How long a planned failover is waited for: the secondary has a second for it, and the arbiter may be slow. Then it is
 * unanswered.
 */
export const failoverTimeoutMs = 15_000;

/** Before its host is shut down, VMs are handed over for so long. Beyond: who is still here ends with the host. */
export const handOverMs = 45_000;
export const handOverPollMs = 50;
