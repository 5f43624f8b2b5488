// One TCP connection that a node knows, and how its guest's sequence space maps to the client space:
//
//    client sequence = guest sequence + delta          (0 on a primary that never failed over)
//    client TSval    = guest TSval + time delta
//
// "Client ISN" is the guest's initial sequence number as the client knows it. A new connection on an old 5-tuple begins
// when the guest sends a SYN or SYN-ACK with another ISN, never when a client asks for it: anybody can forge a SYN, and
// a connection that is being translated must survive that.
//
// A secondary may not know its deltas yet: it is *paired* once both its guest's SYN and the primary's are known
// (announcement.ts).
//
//    opening ──► open ──────► closing ──────────────► ended
//              the client has  one end sent FIN       both have, or one sent RST
//              answered the
//              guest's number

import { FlowKey } from '../../packet/flow-key.ts';
import type { FrameView } from '../../packet/frame-view.ts';
import { distance } from '../../packet/sequence.ts';
import type { FlowEntry } from './flow-map.ts';

/** Bits of its `flags`. */
export const flag = {
  ...{ clientIsn: 1, guestFin: 2, clientFin: 4, guestReset: 8, clientReset: 16, unscaled: 32 },
  /**
   * The client has acknowledged the guest's SYN: nobody can who has not seen it. Or the guest goes on with an old
   * connection.
   */
  open: 64,
} as const;

export type Phase = 'opening' | 'open' | 'closing' | 'ended';

export class Connection<Attachment> implements FlowEntry<Connection<Attachment>> {
  /** Named from the guest. */
  readonly key: FlowKey;
  next: Connection<Attachment> | undefined = undefined;

  delta = 0;
  timeDelta = 0;
  clientIsn: number | undefined = undefined;
  /** The guest's ISN and first TSval in its own space; only a secondary that is not paired needs them. */
  guestIsn: number | undefined = undefined;
  guestTime: number | undefined = undefined;
  paired = true;
  /** Bits by which the guest's window field is shifted. */
  windowShift = 0;
  flags = 0;
  /**
   * What the guest has acknowledged last, and how far its window reached at most: a segment of the client that lies
   * elsewhere
   *  it does not take. Signed, so that storing them allocates nothing.
   */
  guestAck = 0;
  guestEdge = 0;
  hasGuestAck = false;

  /** Index of the record in its family's array. */
  slot = -1;
  /** Since when its age counts, at the earliest; the queues in which it stands, at most once in each. */
  since = 0;
  queues = 0;
  lastSeen = 0;
  /** What the node hangs on the connection: a compare state, or frames that wait. */
  attachment: Attachment | undefined = undefined;

  constructor(key: FlowKey) {
    this.key = new FlowKey().copyFrom(key);
  }
}

export function noteGuestAck(connection: Connection<unknown>, view: FrameView): void {
  const { ack } = view;
  const edge = ack + (view.window << (view.isSyn ? 0 : connection.windowShift));
  if (!connection.hasGuestAck || distance(ack, connection.guestAck) > 0) connection.guestAck = ack | 0;
  if (!connection.hasGuestAck || distance(edge, connection.guestEdge) > 0) connection.guestEdge = edge | 0;
  connection.hasGuestAck = true;
}

/** Whether the guest may take what the client says at `sequence`; undefined when the guest has said nothing yet. */
export function isInWindow(connection: Connection<unknown>, sequence: number): boolean | undefined {
  if (!connection.hasGuestAck) return undefined;
  return distance(sequence, connection.guestAck) >= 0 && distance(sequence, connection.guestEdge) <= 0;
}

export function phaseOf({ flags }: Connection<unknown>): Phase {
  const fins = flags & (flag.guestFin | flag.clientFin);
  const isReset = (flags & (flag.guestReset | flag.clientReset)) !== 0;
  if (isReset || fins === (flag.guestFin | flag.clientFin)) return 'ended';
  if ((flags & flag.open) === 0) return 'opening';
  return fins === 0 ? 'open' : 'closing';
}

/** Whether a client that says `ack` has seen the guest's SYN. */
export function answers({ clientIsn }: Connection<unknown>, ack: number): boolean {
  if (clientIsn === undefined) return false;
  const acknowledged = distance(ack, clientIsn);
  return acknowledged >= 1 && acknowledged <= largestAnswerBytes;
}

/** What a guest says before its client has answered at all: less than any window. */
const largestAnswerBytes = 1 << 30;

/** The client gave the connection up: it wants nothing more of it. */
export function hasClientReset(connection: Connection<unknown>): boolean {
  return (connection.flags & flag.clientReset) !== 0;
}

/** Whether `sequence` of the guest, translated, is the ISN under which the client knows this connection. */
export function isKnownIsn(connection: Connection<unknown>, sequence: number): boolean {
  return connection.clientIsn !== undefined && distance(sequence + connection.delta, connection.clientIsn) === 0;
}
