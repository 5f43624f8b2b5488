// Bounds of the proxy, and what happens at each. The rule behind all of them: at a limit of the comparer the answer is
// a checkpoint and a guest that waits, never a lost or an uncompared frame.

export const proxyLimits = {
  /**
   * TCP connections known by a node. Beyond: the oldest that has ended is forgotten, then the oldest whose client has
   * not
   *  answered, then one that needs no translation; never one that has work. A checkpoint makes a forgotten one
   *  comparable again.
   */
  connectionsMax: 100_000,
  /** Encoded bytes of the table: 100,000 connections of IPv4, or 58,000 of IPv6. Beyond: as at `connectionsMax`. */
  tableBytesMax: 3_300_000,
  /** How long an ended connection is remembered, for late retransmissions. */
  lingerMs: 60_000,
  /**
   * How long a call is remembered that its client has not answered: longer than a guest repeats its own part of it (64
   * s lie
   *  between two of a Linux guest at most; RFC 5382, 5, says 4 minutes). Beyond: forgotten.
   */
  openingMs: 240_000,
  /**
   * How long a connection is remembered of which one end has sent FIN, and nothing has come since (RFC 5382: 2 h 4 min
   * for an
   *  open one). Beyond: forgotten.
   */
  closingMs: 7_440_000,

  /** Frames of the PVM held, of one connection or flow in bytes and of all. Beyond: checkpoint, and the guest waits. */
  heldFramesMax: 65_536,
  heldBytesPerFlowMax: 4 << 20,
  heldBytesMax: 64 << 20,
  /**
   * A guest that was told to wait may still hand in what was on its way: up to this factor. Beyond: dropped, counted.
   */
  heldOverrunFactor: 2,
  /**
   * Held frames that travel in a checkpoint, fewer than its message takes. Beyond: TCP data is left out, because the
   * guest
   *  sends it again, and of the rest what has no room: lost, as on any network, if the primary dies before they have
   *  left.
   */
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

  /**
   * Datagrams of the SVM kept per flow until the PVM's come. Beyond: the oldest is not compared any more. The secondary
   * keeps it
   *  until the next checkpoint (or `unconfirmedFramesMax`), and says it at a takeover.
   */
  datagramsAheadMax: 1024,
  datagramsAheadBytesMax: 1 << 20,
  /**
   * Those of all flows, and fragments among them. Beyond: the one at hand is not compared, as at `datagramsAheadMax`.
   */
  datagramsAheadBytesAllMax: 64 << 20,
  /** A datagram of the SVM that the PVM has not sent is not compared any more after this, as at `datagramsAheadMax`. */
  datagramAheadMs: 2000,
  /** Datagram flows remembered while nothing waits in them. Beyond: forgotten. */
  idleFlowsMax: 4096,
  /** Datagram flows in which something waits. Beyond: datagrams of the SVM that begin one are not compared, as
   *  at `datagramsAheadMax`. */
  flowsMax: 65_536,

  /** Frames that may leave but find the gate closed. Beyond: the guest waits; at twice that, dropped and counted. */
  gatedBytesMax: 16 << 20,

  /**
   * Ingress kept by the secondary since a capture. Beyond: the oldest is dropped, which is packet loss to the guest.
   */
  logItemsMax: 131_072,
  logBytesMax: 64 << 20,
  /** SVM output kept until it is known to have left. Beyond: the oldest is dropped; TCP sends again. */
  unconfirmedFramesMax: 65_536,
  unconfirmedBytesMax: 64 << 20,
  /** SVM frames of a connection whose offset is not known yet: hardly more than its SYN and repetitions of it, because
   *  the client has not answered. Beyond: the oldest but the SYN is dropped; TCP sends again. */
  unpairedFramesMax: 8,

  /**
   * Times in headers that a client was told and this node's guest says otherwise (patches.ts). Beyond: such a
   * difference is a
   *  divergence.
   */
  patchesMax: 4096,

  /** Bytes kept free for frames to come. Beyond: left to the garbage collector. Longer frames are never kept free. */
  pooledBytesMax: 8 << 20,
  frameBytesMax: 65_550,

  /**
   * IP packets of the PVM whose fragments have not all come, and their bytes. Beyond: a checkpoint. Those of the SVM
   * are bounded
   *  as other datagrams are: by their age, and by `datagramsAheadBytesAllMax`.
   */
  fragmentedMax: 64,
  fragmentedBytesMax: 4 << 20,
  fragmentsPerPacketMax: 128,

  /**
   * Divergences kept for the status, and bytes shown of each side. Beyond: the oldest leaves, the rest is not shown.
   */
  divergencesKept: 32,
  divergenceBytes: 16,
} as const;

/** A different datagram of the SVM may still be overtaken by the right one for this long. */
export const reorderGraceMs = 20;

/** Window growth that is worth a frame of its own. */
export const windowUpdateBytes = 1460;

/** Records of pieces, datagrams and held frames that are kept for reuse, each. More: left to the garbage collector. */
export const sparePiecesMax = 4096;

/** The part of an HTTP answer in which its Date header is looked for. Behind it a difference is a divergence. */
export const answerHeadBytesMax = 4096;

/** Addresses of a guest that are learned and announced after a takeover; of more, the ones learned last. */
export const guestAddressesMax = 64;

/**
 * An address that the guest has not claimed for so long is its own no more: not announced until it claims it again. A
 * guest that
 *  talks to anybody on its network asks for neighbours, and so claims it, far more often.
 */
export const guestAddressAgeMs = 3_600_000;
