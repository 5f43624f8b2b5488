// Limits of disk replication, and what happens at each of them.
//
// Memory: on the primary what the link may queue (windowBytes); on the secondary journalMemoryBytesMax of data that
// waits for its checkpoint, and windowBytes that wait for the journal's file. Everything else is in files.

/** Disks of one VM. A spec or a session with more is refused. */
export const disksMax = 8;

/**
 * Bytes that were sent and that the secondary does not hold yet. Beyond it the guest's writes wait for the secondary.
 */
export const windowBytes = 16 * 1024 * 1024;

/** Data of one record. A larger write travels as several; a larger record of a peer ends the session. */
export const recordBytesMax = 4 * 1024 * 1024;

/**
 * Data of unapplied epochs that is kept in memory as well, so that applying reads nothing. Beyond it only the file has
 * it.
 */
export const journalMemoryBytesMax = 64 * 1024 * 1024;

/** Bytes and records of one write to a file. */
export const batchBytesMax = 4 * 1024 * 1024;
export const batchRecordsMax = 512;

/**
 * Bytes of a durable replica that are written and not flushed. Beyond: they are flushed, also in the initial copy, so
 * that no checkpoint waits for a flush of all.
 */
export const unflushedBytesMax = 64 * 1024 * 1024;

/**
 * A range that a disk is asked to zero, or to keep room for, is at most this long. A longer one is asked for in pieces:
 * each has an answer.
 */
export const rangePieceBytesMax = 64 * 1024 * 1024;

/** Largest disk that is replicated: offsets are doubles. A session with a larger one is refused. */
export const diskBytesMax = 2 ** 50;

/** Text of a hash in a message. */
export const hashBytesMax = 128;

/** Written bytes after which the primary's image is flushed in the background, so that no pause has to (sink.ts). */
export const flushEveryBytes = 8 * 1024 * 1024;

/** Block of the notes of what changed: a byte that is written makes this much to be copied again. */
export const changedBlockBytes = 64 * 1024;

/** Bytes that are read at once when changed blocks are copied. */
export const changedReadBytes = 1024 * 1024;

/** Written bytes after which a new note of what changed is begun: about as much is copied again beyond what must be. */
export const notedBytesMax = 16 * 1024 * 1024;

/** On its way or not flushed: with less than this a capture does not wait. */
export const settledBytes = 1024 * 1024;

/**
 * A capture waits at most so long, with the guest running, until less than settledBytes is on its way and not flushed.
 */
export const settleMs = 20;
