// Bounds of the frame sockets, and what happens at each.

/**
 * Longest frame we accept: QEMU's own bound for a netdev socket (64 KiB and a virtio header). Longer: the peer is
 * dropped.
 */
export const frameBytesMax = 68 * 1024;

/**
 * Bytes waiting to be written to a peer that does not read. At the limit frames are dropped and counted, as a full NIC
 * ring would.
 */
export const sendQueueBytesMax = 8 * 1024 * 1024;

/**
 * Bytes handed to a Unix socket at once. Linux makes one message of up to half of the socket's buffer and at most 48
 * KiB, and takes a message whole or not at all (unix_stream_sendmsg). A frame beyond it, which no MTU of ours has, may
 * be cut.
 */
export const wholeBytesMax = 32 * 1024;

/** A Unix socket without room is tried again after this; Node does not tell of room without writing. */
export const roomPollMs = 1;

/**
 * Bytes taken from a socket by one synchronous drain. A guest that stands still cannot send more than its socket buffer
 * holds.
 */
export const drainBytesMax = 16 * 1024 * 1024;

/** A device that Node cannot poll is read this often. */
export const devicePollMs = 1;

/**
 * Frames read at once from a device that Node cannot poll; the rest waits in the device's own queue for the next time.
 */
export const deviceReadsPerPoll = 512;

/** How long the test of polling a device may take before it counts as not working. */
export const deviceTestMs = 500;

/** A bridge port's name, without the zero that ends it (IFNAMSIZ). */
export const deviceNameBytesMax = 15;

/**
 * Written buffers kept for the next write, and the longest that is worth keeping. The others are the garbage
 * collector's.
 */
export const sparesMax = 4;
export const spareBytesMax = 512 * 1024;

/** The kernel answers a question for all network devices in pieces of at most this. */
export const linkAnswerBytes = 64 * 1024;

/** Pieces of an answer about network devices: some 20 devices each. Beyond: the rest is not looked at. */
export const linkAnswersMax = 256;

/** Whether a TAP leads anywhere is looked at this often, and it is made a port of its bridge again when it is none. */
export const linkLookMs = 500;

/** An uplink that is gone is opened again after this, as often as it takes. */
export const uplinkAgainMs = 1000;
