// A flow of what is not TCP: the PVM's datagrams that wait, and the SVM's that came first (datagram.ts compares them).

import { FlowKey, flowText } from '../../packet/flow-key.ts';
import type { FrameKind, FrameView } from '../../packet/frame-view.ts';
import type { FlowEntry } from '../connections/flow-map.ts';
import { equalPrefix } from '../frames/byte-stream.ts';
import type { Piece } from '../frames/fragments.ts';
import type { ActiveFlow, FrameClass } from './sink.ts';

export interface Datagram {
  frame: Buffer;
  contentFrom: number;
  contentTo: number;
  time: number;
  /** PVM: its place in everything the guest sent. SVM: its id. */
  order: number;
  /** Whether `frame` is of the pool. */
  owned: boolean;
  /** PVM: whether the SVM has sent an equal one; it leaves when it is the oldest. */
  isMatched: boolean;
  matchedId: number;
  /** What it came in, in the order of arrival; undefined when it came whole. */
  pieces: Piece[] | undefined;
  /** PVM: the ids of the fragments of the SVM's equal one. */
  matchedPieces: Piece[] | undefined;
}

export const noFrame = Buffer.alloc(0);

export class DatagramFlow implements FlowEntry<DatagramFlow>, ActiveFlow {
  readonly key: FlowKey;
  next: DatagramFlow | undefined = undefined;
  activeIndex = -1;
  readonly kind: FrameKind;
  readonly text: string;
  held: Datagram[] = [];
  heldBytes = 0;
  ahead: Datagram[] = [];
  aheadBytes = 0;
  diverged = false;

  constructor(view: FrameView) {
    this.key = new FlowKey().copyFrom(view.key);
    this.kind = view.kind;
    this.text = textOf(view);
  }
}

export function emptyDatagram(): Datagram {
  return {
    frame: noFrame,
    contentFrom: 0,
    contentTo: 0,
    time: 0,
    order: 0,
    owned: false,
    isMatched: false,
    matchedId: 0,
    pieces: undefined,
    matchedPieces: undefined,
  };
}

export function classOf(flow: DatagramFlow): FrameClass {
  return flow.kind === 'udp' || flow.kind === 'icmp' ? 'data' : 'other';
}

export function isEqual(a: Datagram, b: Datagram): boolean {
  const count = a.contentTo - a.contentFrom;
  if (count !== b.contentTo - b.contentFrom) return false;
  return equalPrefix(a.frame, a.contentFrom, b.frame, b.contentFrom, count) === count;
}

function textOf(view: FrameView): string {
  if (view.kind === 'arp') return 'arp';
  if (view.kind === 'other') return `ethernet type ${view.key.ports.toString(16)}`;
  const protocol = view.kind === 'ip' ? `protocol ${view.ipProtocol}` : view.kind;
  return flowText(view.key, protocol, view.kind === 'udp');
}
