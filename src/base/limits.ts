// Bounds of what everything else stands on, and what happens at each.

/**
 * Tries to take an owner file. It is removed by those who held it, so it may have been another one when it was opened, and
 * each try sees a new one. Beyond: it counts as taken by somebody unknown.
 */
export const ownerTriesMax = 100;

/** How long a lock without a living owner is waited for: its owner is ending. Beyond: it counts as taken. */
export const ownerDyingMsMax = 2000;
export const ownerPollMs = 10;
