// What the comparer knows of one TCP connection, all in client space.
//
//                    rNext                    pNext
//    PVM    ---------|========[held]==========|           rNext: the next sequence number to leave
//    SVM    ---------|===========|                        pNext: the next one the PVM will use
//                  ahead.base  ahead.next
//
// The first letter of a field says whose it is; what follows is the same for each, as far as it has one:
//
//              p: what the PVM has said      r: what has been released   s: what the SVM has said    c: the client
//    Known     a first segment was seen      -                           the same                    -
//    Next      the number it will use next   the next one to leave       ahead.next                  -
//    Ack       its highest acknowledgement   the highest that has left   its highest                 its highest
//    Edge      the right end of its window   the widest that has left    the right end               -
//    Time      its latest TSval              the latest that has left    its latest                  -
//    SynAck    what its SYN-ACK answers      -                           the same                    -
//    Syn       -                             options of the SYN          options of its SYN          -
//    FinAt     -                             where the FIN stands        where its FIN stands        -
//
// AckKnown and TimeKnown say whether Ack and Edge, or Time, mean anything yet.
//
// At the start of an epoch the SVM is the PVM as it was at the capture: the SVM's side starts as a copy of the PVM's.

import { flowText } from '../../../packet/flow-key.ts';
import type { Connection } from '../../connections/connection.ts';
import { ByteStream } from '../../frames/byte-stream.ts';
import type { FramePool } from '../../frames/frame-pool.ts';
import type { SegmentParts } from '../../frames/rewrite.ts';
import type { ActiveFlow } from '../sink.ts';
import type { SentBytes } from './sent-bytes.ts';

/** A segment of the PVM that waits. */
export interface Held extends SegmentParts {
  time: number;
  /** Its place in everything the guest sent. */
  order: number;
  /** Whether `frame` is our own copy yet. */
  owned: boolean;
  /** It says something that cannot be compared: it leaves by a commit alone. */
  isOpaque: boolean;
}

/** An acknowledgement or window that the PVM gave and the client has not been given in full. */
export interface OwedAck {
  template: SegmentParts;
  ack: number;
  edge: number;
  since: number;
}

export class TcpStream implements ActiveFlow {
  readonly connection: Connection<TcpStream>;
  activeIndex = -1;
  epoch = 0;

  /** The PVM's ISN of this generation, when its SYN was seen. */
  isn: number | undefined = undefined;
  /** What its SYN-ACK acknowledges: which SYN of the client it answers. */
  pSynAck: number | undefined = undefined;
  pKnown = false;
  pNext = 0;
  pAckKnown = false;
  pAck = 0;
  pEdge = 0;
  /** The latest TSval of the PVM, of what has left, and of the SVM. */
  pTimeKnown = false;
  pTime = 0;

  rNext = 0;
  rAckKnown = false;
  rAck = 0;
  rEdge = 0;
  rTimeKnown = false;
  rTime = 0;
  /** What the SYN that has left negotiates, and its flags; where the FIN that has left stands. */
  rSyn: string | undefined = undefined;
  rSynFlags = 0;
  rFinAt: number | undefined = undefined;
  /** What has left and the client has not acknowledged; undefined before the first byte. */
  sent: SentBytes | undefined = undefined;
  /** The client's latest acknowledgement. */
  cAckKnown = false;
  cAck = 0;

  sKnown = false;
  sSynSeen = false;
  /** What its latest SYN negotiates (synText). */
  sSyn: string | undefined = undefined;
  sSynFlags = 0;
  /** What the SVM's SYN-ACK acknowledges: sent at once, or after a SYN of its own (simultaneous open). */
  sSynAck: number | undefined = undefined;
  sAckKnown = false;
  sAck = 0;
  sEdge = 0;
  sTimeKnown = false;
  sTime = 0;
  sFinAt: number | undefined = undefined;
  /** Their names (resetName). */
  sResets: number[] = [];
  /** Where its urgent data ends, by what it has marked. */
  sUrgents: number[] | undefined = undefined;
  readonly ahead: ByteStream;
  /** Bytes of `ahead` and of `parked` as counted by the comparer. */
  aheadCounted = 0;

  /** Frames of the SVM that belong to a connection on this 5-tuple that the PVM has not begun yet. */
  parked: Buffer[] = [];
  parkedBytes = 0;
  parkedIsn = 0;

  /** In the order of their sequence numbers; an RST keeps its place. */
  held: Held[] = [];
  heldBytes = 0;
  owed: OwedAck | undefined = undefined;
  /** The guest's side of the connection begins as HTTP does (http-date.ts). */
  isHttp = false;
  /** A time in a header in which the two sides differ: the PVM's, at its place, until the secondary has it. */
  date: { sequence: number; bytes: Uint8Array } | undefined = undefined;
  /** The two sides differ: nothing new leaves before a commit. */
  diverged = false;

  constructor(connection: Connection<TcpStream>, pool: FramePool) {
    this.connection = connection;
    this.ahead = new ByteStream(pool);
  }

  /** Its name, for people. */
  get text(): string {
    return flowText(this.connection.key, 'tcp');
  }
}
