// Limits of the NBD server, and what happens at each of them. Its client is a QEMU, which holds guest-controlled state.

/**
 * Data of one read or write. A longer read is refused with EINVAL; a longer write ends the connection (its data is).
 */
export const requestBytesMax = 32 * 1024 * 1024;

/** Data of one option of the handshake. A longer one ends the connection. */
export const optionBytesMax = 8 * 1024;

/** Options of one handshake. More end the connection. */
export const optionsMax = 64;

/** An export's name, as NBD says. A longer one is refused with ERR_INVALID. */
export const nameBytesMax = 4096;

/** Requests that were handed out and not answered. At the limit nothing more is read: the client waits. */
export const requestsInFlightMax = 64;

/** Data of writes that were handed out and not answered. At the limit nothing more is read. */
export const requestBytesInFlightMax = 64 * 1024 * 1024;

/** Connections to one server. More are closed at once. */
export const connectionsMax = 16;

/** One part of an answer to the client. A longer one ends the connection. */
export const replyBytesMax = 16 * 1024 * 1024;

/** Bytes of a disk that are asked about at once: the answer is 8 bytes for each change between dirty and clean. */
export const statusBytesMax = 1024 * 1024 * 1024;
