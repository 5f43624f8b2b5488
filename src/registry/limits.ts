// Limits of the registry, and what happens at each of them.

/** One entry's value. A larger one is refused when it is written, and skipped with a warning when it is read. */
export const valueBytesMax = 64 * 1024;

/** All entries of one listing, as etcd sends them. A larger registry cannot be read: the last listing stays in force. */
export const listingBytesMax = 16 * 1024 * 1024;

/** Entries of a registry in a folder. A fuller folder is not a registry's and is refused. */
export const folderEntriesMax = 10_000;
