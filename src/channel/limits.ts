// Limits of the link between two nodes, and what happens at each of them.

/** Payload of one message. A larger one from the peer closes the link; a larger one of ours is a bug of ours. */
export const messageBytesMax = 8 * 1024 * 1024;

/** Payload of the first message (hello). A larger one is refused before anything is allocated for it. */
export const helloBytesMax = 4 * 1024;

/** Bytes waiting to leave from which on `congested` is set: the owner stops producing until `drained`. */
export const congestedBytes = 4 * 1024 * 1024;

/** Bytes waiting to leave at which the link is given up as broken: the peer does not read, the owner did not stop. */
export const queueBytesMax = 64 * 1024 * 1024;

/** Parts up to this size are copied by `send` and belong to the caller again; larger ones belong to the link. */
export const copiedPartBytesMax = 128 * 1024;

/** Small messages are gathered in slabs of this size, so that one tick's messages leave in one write. */
export const slabBytes = 256 * 1024;

/** Connections whose hello is awaited at the same time; one more is closed at once and counted as `busy`. */
export const handshakesMax = 32;

/** How long a link that was closed in order waits for the peer to take the rest, before it is cut. */
export const closeTimeoutMs = 1_000;

/** How long a probe of an existing socket file waits for an answer before the file counts as in use. */
export const probeTimeoutMs = 1_000;

/**
 * What the peer's host has not acknowledged for so long ends the link: a path that carries other links may lose this
 * one.
 */
export const unacknowledgedMs = 5_000;

/** Characters of what a side says when it ends a link. A longer text is cut. */
export const farewellCharactersMax = 300;

/**
 * TLS handshakes on a port of links: of one source at once and per second, of all sources that have proven nothing, and
 * begun at the same time. One costs the event loop about a millisecond. Who comes beyond is reset at once and counted.
 */
export const linkDoorLimits = {
  burst: 48,
  perSecond: 16,
  strangersBurst: 32,
  strangersPerSecond: 16,
  atOnce: 32,
} as const;

/**
 * Sources of connections that are remembered: strangers, and those that have proven who they are. The oldest leaves.
 */
export const sourcesMax = 1024;
export const knownSourcesMax = 64;
