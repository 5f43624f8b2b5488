// Bounds of the command line, and what happens at each.

/** How long the command line waits for what it asked a cluster for. Beyond: it says so; what was asked for goes on. */
export const changeTimeoutMs = 60_000;

/** A drained node copies its VMs' memory to others first. */
export const drainTimeoutMs = 600_000;

/** How long a test, and a file with all its tests, may take on a starved host. Beyond: it has failed. */
export const testTimes = {
  unitMs: 600_000,
  integrationMs: 1_800_000,
  soakMs: 24 * 3_600_000,
} as const;

/** What is still running this long after it was asked to end is killed. */
export const testGraceMs = 10_000;
