// Limits of the trackers of written pages, and what happens at each.

/**
 * Runs of written pages in one stretch of 2 MiB that are protected one by one under KVM. More: the stretch in one call
 * (userfaultfd.ts).
 */
export const gentleRunsMax = 128;
