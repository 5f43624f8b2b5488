// Bounds of what everything else stands on, and what happens at each.

/**
 * Tries to take an owner file. It is removed by those who held it, so it may have been another one when it was opened,
 * and each try sees a new one. Beyond: it counts as taken by somebody unknown.
 */
export const ownerTriesMax = 100;

/** How long a lock without a living owner is waited for: its owner is ending. Beyond: it counts as taken. */
export const ownerDyingMsMax = 2000;
export const ownerPollMs = 10;

/** Bytes of a log or a console that wait to be written. Beyond: what comes is lost, counted and told. */
export const writerBytesMax = 1024 * 1024;

/** Size at which a log is put aside as FILE.old, in the place of the one before: twice this is kept. */
export const logFileBytesMax = 16 * 1024 * 1024;

/** How long a process that ends waits for its logs to be written. Beyond: they are lost, and it ends by SIGKILL. */
export const exitFlushMs = 2000;

/** How long a full pipe at standard error is waited for, in steps of pipePollMs. Beyond: the line is lost. */
export const pipeFullMsMax = 1000;
export const pipePollMs = 10;

/** What a stranger or a starved host can make happen at will is logged once, and then with its count this often. */
export const tallyEveryMs = 60_000;

/** Kinds that are counted apart. Further ones are counted together, as `other`. */
export const tallyKindsMax = 32;

/** The event loop is looked at this often. */
export const loopLookMs = 20;

/** A stall of the event loop that is counted, and named in status and log. */
export const stallMs = 100;

/** Stalls that status names one by one. Older ones leave; the longest stays. */
export const stallsKept = 10;

/** Silence of others is counted in pieces of at most this. One that ends late by more than that does not count. */
export const awakeSliceMs = 250;

/**
 * So many pieces that end late do not count. Beyond: they do, since a process that is starved all the time has to judge
 * in the end.
 */
export const latePiecesMax = 10;
