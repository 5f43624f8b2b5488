// Fragments of IP packets: collected until the packet is whole, which is then compared like one that came whole. What
// leaves are the fragments as they came.
//
//    piece  offset 0 ........ 1480 ........ 2960 .... 3400
//           |------ more -----|----- more ----|- last -|
//
// Pieces that overlap without being equal never make a whole: such a packet waits for a commit. So does one of which a
// later piece has other options than the first one, which are those that are compared.

import { write16 } from '../../packet/checksum.ts';
import { FrameView } from '../../packet/frame-view.ts';
import { ipv4 } from '../../packet/ipv4.ts';
import { proxyLimits } from '../limits.ts';
import { finishIp } from './rewrite.ts';

export interface Piece {
  frame: Buffer;
  /** PVM: its place in everything the guest sent. SVM: its id. */
  order: number;
  /** Place in the packet; where the bytes lie in the frame. */
  offset: number;
  from: number;
  to: number;
  hasMore: boolean;
  /** IPv4 options or IPv6 extension headers before the fragment header. */
  options: Buffer;
}

const fragmentHeaderBytes = 8;
const largestPacketBytes = 65_535;

export function pieceOf(view: FrameView, order: number): Piece {
  const frame = Buffer.from(view.frame);
  return {
    frame,
    order,
    offset: view.fragmentOffset,
    from: view.contentFrom,
    to: view.contentTo,
    hasMore: view.hasMoreFragments,
    options: frame.subarray(view.optionsAt, headerEndOf(view)),
  };
}

function headerEndOf(view: FrameView): number {
  return view.transportAt - (view.isIpv6 ? fragmentHeaderBytes : 0);
}

const pieceView = new FrameView();

/** The packet as one frame, not fragmented; undefined while something is missing. */
export function assemble(pieces: readonly Piece[]): Buffer | undefined {
  if (pieces.length > proxyLimits.fragmentsPerPacketMax) return undefined;
  const sorted = [...pieces].sort((a, b) => a.offset - b.offset);
  const [first] = sorted;
  if (first === undefined || sorted.some((piece) => hasOtherOptions(piece, first))) return undefined;
  const parts: Buffer[] = [];
  let at = 0;
  let isComplete = false;
  for (const piece of sorted) {
    const bytes = piece.to - piece.from;
    if (piece.offset === at - bytes && isRepeated(parts.at(-1), piece)) continue;
    if (piece.offset !== at || isComplete) return undefined;
    parts.push(piece.frame.subarray(piece.from, piece.to));
    at += bytes;
    isComplete = !piece.hasMore;
  }
  return isComplete && at < largestPacketBytes ? wholeOf(first, parts) : undefined;
}

function hasOtherOptions({ options }: Piece, first: Piece): boolean {
  return options.length > 0 && !options.equals(first.options);
}

function isRepeated(part: Buffer | undefined, piece: Piece): boolean {
  return part?.equals(piece.frame.subarray(piece.from, piece.to)) === true;
}

function wholeOf(first: Piece, parts: readonly Buffer[]): Buffer {
  const view = pieceView.parse(first.frame);
  const headerEnd = headerEndOf(view);
  const whole = Buffer.concat([first.frame.subarray(0, headerEnd), ...parts]);
  if (view.isIpv6) whole[view.nextHeaderAt] = view.ipProtocol;
  else {
    // Every packet has another identification.
    write16(whole, view.ipAt + ipv4.id, 0);
    write16(whole, view.ipAt + ipv4.fragment, 0);
  }
  finishIp(whole, view.ipAt);
  return whole;
}
