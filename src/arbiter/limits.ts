// Limits of the arbiters, and what happens at each of them.

/** A record's file. A larger one is not ours: the read fails with a ColoError. */
export const recordBytesMax = 4 * 1024;

/** Newest terms whose files are kept. More than one, so that a listing during a claim always shows a newest. */
export const termsKept = 8;

/** Listings of the folder until a read gives up because files vanish under it. */
export const readAttempts = 8;

/** Entries of the arbiter's folder; a fuller one is not an arbiter's folder and is refused. */
export const folderEntriesMax = 100_000;

/** How long one operation may take: shared storage can hang. Beyond it the outcome is unknown and must be read. */
export const operationTimeoutMs = 5_000;

/**
 * The arbiter's way of writing is tried this often when no claim is made, so that its loss is known before it matters.
 */
export const probeEveryMs = 3_000;
