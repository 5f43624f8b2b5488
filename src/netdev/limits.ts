// Bounds of the frame sockets, and what happens at each.

/** Longest frame we accept: QEMU's own bound for a netdev socket (64 KiB and a virtio header). Longer: the peer is dropped. */
export const frameBytesMax = 68 * 1024;

/** Bytes waiting to be written to a peer that does not read. At the limit frames are dropped and counted, as a full NIC ring would. */
export const sendQueueBytesMax = 8 * 1024 * 1024;

/** Bytes taken from a socket by one synchronous drain. A guest that stands still cannot send more than its socket buffer holds. */
export const drainBytesMax = 16 * 1024 * 1024;
