// Limits of a checkpoint on its way, and what happens at each of them.
//
// Memory: the secondary keeps two copies of guest RAM (the SVM's own and the shadow) and, for one checkpoint that is
// staged and one that is being received, stagedBytesMax together. What does not fit goes to the spill file; without
// one the checkpoint is refused and the secondary stays as it is.

/** Page contents in one batch before compression. Small enough that packets flow between two of them. */
export const batchRawBytes = 1024 * 1024;

/** The largest batch that is accepted from a peer. */
export const batchRawBytesMax = 4 * 1024 * 1024;

/** Runs in one batch: the encoder begins another batch, a peer's larger one is refused. */
export const batchRunsMax = 1024;

/** Page contents held in memory by staging, decoded or not, over all checkpoints. Beyond it they are spilled. */
export const stagedBytesMax = 40 * 1024 * 1024;

/** Pages of the newest committed checkpoint that the primary keeps for differences. A larger one is not kept. */
export const deltaBaseBytesMax = 16 * 1024 * 1024;

/** Device state of a machine; the snapshot carrier's cluster holds no more. A larger one cannot be encoded. */
export const deviceBytesMax = 2 * 1024 * 1024;

/**
 * The proxy's connection table: 32 bytes for each of 100,000 connections, and some more. A larger one cannot be
 * encoded: the checkpoint fails and says so. With device state and held frames it must fit into one message of the link
 * (8 MiB).
 */
export const tableBytesMax = 3.25 * 1024 * 1024;

/** Frames the primary held at the capture. A larger amount cannot be encoded: the proxy puts fewer together. */
export const heldBytesMax = 2.5 * 1024 * 1024;

/** A hash of guest RAM, as text. */
export const hashBytesMax = 128;

/** The snapshot template before and after compression. A larger one cannot be encoded. */
export const templateRawBytesMax = 64 * 1024 * 1024;
export const templateBytesMax = 7 * 1024 * 1024;

/** Raw bytes up to which compression runs on the event loop, because a trip to another thread would cost more. */
export const compressInlineBytesMax = 64 * 1024;

/** Bytes that are written to RAM and shadow before the event loop gets a turn: beats must be echoed meanwhile. */
export const writeSliceBytes = 16 * 1024 * 1024;

/** Checkpoint records kept for status and percentiles; the oldest leave. */
export const recordsMax = 1024;
