// Limits of the registry, and what happens at each of them.

/** One entry's value. A larger one is refused when it is written, and skipped with a warning when it is read. */
export const valueBytesMax = 64 * 1024;

/**
 * All entries of one listing, as etcd sends them. A larger registry cannot be read: the last listing stays in force.
 */
export const listingBytesMax = 16 * 1024 * 1024;

/** What etcd sends of an entry besides its value, with a margin. From half of all on no further VM is taken. */
export const entryBytes = 400;

/** Entries of a registry in a folder. From half of them on no further VM is taken; a fuller folder is refused. */
export const folderEntriesMax = 10_000;

/**
 * Tries of a node to announce itself. Only the node itself does, so its entry changes between two tries at most when it
 * has just started. Beyond: another node has its name, and the announcement fails.
 */
export const announceTriesMax = 4;
