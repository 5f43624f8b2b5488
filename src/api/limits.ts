// Limits of the APIs, and what happens at each of them.

/** A request's body to one node's process. A longer one is refused as bad input. */
export const nodeBodyBytesMax = 16 * 1024;

/** A request's body to the service: a spec fits many times. A longer one is refused with 413, and counted. */
export const bodyBytesMax = 256 * 1024;

/** An answer that a client reads. A longer one is not read to its end, and is an error. */
export const answerBytesMax = 8 * 1024 * 1024;

/** Connections to the service's network port at one time. Further ones are closed at once. */
export const connectionsMax = 256;

/** Streams of live updates at one time. Further ones are refused with 429. */
export const streamsMax = 32;

/** Unsent bytes of a stream of live updates. A reader that lags by more is disconnected, and may connect again. */
export const streamBacklogBytesMax = 1024 * 1024;

/** How long a connection may take for its TLS handshake and its request. Then it is closed. */
export const requestTimeoutMs = 10_000;

/** Lines of a log that are answered at most; a larger number is refused. */
export const logLinesMax = 2_000;

/** Bytes of each log that are looked at, from its end. */
export const logBytesMax = 512 * 1024;
