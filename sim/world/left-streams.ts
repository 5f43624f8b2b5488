// How far each connection of the guest has left, in positions of its stream (0 is the SYN), as the network has seen it.

import type { FrameView } from '../../src/packet/frame-view.ts';
import { distance } from '../../src/packet/sequence.ts';
import type { TcpState } from '../guest/tcp.ts';
import { flowOf } from './reset-book.ts';

interface Left {
  /** The connection's key, as keyOf makes it. */
  key: string;
  isn: number;
  end: number;
}

/** A late frame of an older connection on the same ports is not of this one. */
const streamBytesMax = 1e8;

export class LeftStreams {
  /** The newest connection of each flow. */
  private readonly flows = new Map<string, Left>();
  private readonly ends = new Map<string, Left>();

  left(view: FrameView): void {
    if (view.isReset) return;
    const flow = flowOf(view);
    // The other end's number of a call of the guest is known with its first acknowledgement.
    const known = this.flows.get(flow);
    const isCalling = known?.key === '' && view.hasAck;
    if (view.isSyn) this.begin(flow, view.hasAck ? `${flow} ${(view.ack - 1) >>> 0}` : '', view.sequence);
    else if (isCalling) this.begin(flow, `${flow} ${(view.ack - 1) >>> 0}`, known.isn);
    const left = this.flows.get(flow);
    if (left === undefined) return;
    const bytes = view.payloadBytes + (view.isSyn ? 1 : 0) + (view.isFin ? 1 : 0);
    const end = distance(view.sequence, left.isn) + bytes;
    if (end > left.end && end < streamBytesMax) left.end = end;
  }

  private begin(flow: string, key: string, isn: number): void {
    if (this.flows.get(flow)?.key === key && this.flows.get(flow)?.isn === isn) return;
    const left = { key, isn, end: 0 };
    this.flows.set(flow, left);
    if (key !== '') this.ends.set(key, left);
  }

  /** Whether it has begun to leave, and not got as far as `end`. */
  isBehind(key: string, end: number): boolean {
    const left = this.ends.get(key);
    return left !== undefined && this.flows.get(key.slice(0, key.lastIndexOf(' ')))?.key === key && left.end < end;
  }
}

export function keyOf(tcp: TcpState): string {
  return `${String(tcp.remote.ip)}:${tcp.remote.port}-${tcp.localPort} ${tcp.irs}`;
}
