// Bounds of the proxy, and what happens at each. The rule behind all of them: at a limit of the comparer the answer is a
// checkpoint and a guest that waits, never a lost or an uncompared frame.

export const proxyLimits = {
  /** TCP connections known by a node. Beyond: the oldest untranslated one without work is forgotten; a checkpoint makes
   *  a forgotten one comparable again. */
  connectionsMax: 100_000,
  /** Encoded bytes of the table: 100,000 connections of IPv4, or 58,000 of IPv6. Beyond: as at `connectionsMax`. */
  tableBytesMax: 3_300_000,
  /** How long an ended connection is remembered, for late retransmissions. */
  lingerMs: 60_000,

  /** Frames of the PVM held, of one connection or flow in bytes and of all. Beyond: checkpoint, and the guest waits. */
  heldFramesMax: 65_536,
  heldBytesPerFlowMax: 4 << 20,
  heldBytesMax: 64 << 20,
  /** A guest that was told to wait may still hand in what was on its way: up to this factor. Beyond: dropped, counted. */
  heldOverrunFactor: 2,
  /** Held frames that travel in a checkpoint, fewer than its message takes. Beyond: TCP data is left out, because the guest
   *  sends it again, and of the rest what has no room: lost, as on any network, if the primary dies before they have left. */
  heldBytesInCheckpointMax: 2 << 20,

  /** Bytes and pieces of the SVM kept per connection while the PVM is behind. Beyond: checkpoint. */
  aheadBytesPerConnectionMax: 4 << 20,
  aheadPiecesOutOfOrderMax: 256,
  aheadBytesMax: 64 << 20,
  /** Memory for what has left and the client has not acknowledged, of one connection and of all. Beyond: the oldest is
   *  forgotten, and a retransmission of it leaves by a commit alone. */
  sentBytesPerConnectionMax: 4 << 20,
  sentBytesMax: 64 << 20,
  /** RST positions of the SVM remembered per connection; more are forgotten, oldest first. */
  resetsMax: 8,
  /** Ends of urgent data of the SVM remembered per connection; more are forgotten, oldest first. */
  urgentsMax: 8,

  /** Datagrams of the SVM kept per flow until the PVM's come. Beyond: the oldest is not compared any more. The secondary keeps it
   *  until the next checkpoint (or `unconfirmedFramesMax`), and says it at a takeover. */
  datagramsAheadMax: 1024,
  datagramsAheadBytesMax: 1 << 20,
  /** A datagram of the SVM that the PVM has not sent is not compared any more after this, as at `datagramsAheadMax`. */
  datagramAheadMs: 2000,
  /** Datagram flows remembered while nothing waits in them. Beyond: forgotten. */
  idleFlowsMax: 4096,
  /** Datagram flows in which something waits. Beyond: datagrams of the SVM that begin one are not compared, as
   *  at `datagramsAheadMax`. */
  flowsMax: 65_536,

  /** Frames that may leave but find the gate closed. Beyond: the guest waits; at twice that, dropped and counted. */
  gatedBytesMax: 16 << 20,

  /** Ingress kept by the secondary since a capture. Beyond: the oldest is dropped, which is packet loss to the guest. */
  logItemsMax: 131_072,
  logBytesMax: 64 << 20,
  /** SVM output kept until it is known to have left. Beyond: the oldest is dropped; TCP sends again. */
  unconfirmedFramesMax: 65_536,
  unconfirmedBytesMax: 64 << 20,
  /** SVM frames of a connection whose offset is not known yet: hardly more than its SYN and repetitions of it, because
   *  the client has not answered. Beyond: the oldest but the SYN is dropped; TCP sends again. */
  unpairedFramesMax: 8,

  /** Bytes kept free for frames to come. Beyond: left to the garbage collector. Longer frames are never kept free. */
  pooledBytesMax: 8 << 20,
  frameBytesMax: 65_550,

  /** IP packets whose fragments have not all come, and their bytes, on each side. Beyond: a checkpoint on the primary's
   *  side; on the secondary's the oldest is forgotten. */
  fragmentedMax: 64,
  fragmentedBytesMax: 4 << 20,
  fragmentsPerPacketMax: 128,

  /** Divergences kept for the status, and bytes shown of each side. Beyond: the oldest leaves, the rest is not shown. */
  divergencesKept: 32,
  divergenceBytes: 16,
} as const;

/** A different datagram of the SVM may still be overtaken by the right one for this long. */
export const reorderGraceMs = 20;

/** Window growth that is worth a frame of its own. */
export const windowUpdateBytes = 1460;

/** Records of pieces, datagrams and held frames that are kept for reuse, each. More: left to the garbage collector. */
export const sparePiecesMax = 4096;

/** Addresses of a guest that are learned and announced after a takeover; of more, the ones learned last. */
export const guestAddressesMax = 64;
