// Between a guest's numbers and the client's. Checksums are updated incrementally.
//
//    guest -> client    sequence += delta,  TSval += time delta
//    client -> guest    ack -= delta, both edges of every SACK block too,  TSecr -= time delta
//
// The other direction's numbers (the client's sequence, the guest's ack) are the same in both spaces. An ICMP error
// quotes a segment of the other side, so that its numbers are those that the other side knows:
//
//    client -> guest    the quoted sequence -= delta           guest -> client    the quoted ack += delta

import { read16, read32, replace16, replace32 } from '../../packet/checksum.ts';
import { FlowKey } from '../../packet/flow-key.ts';
import type { FrameView } from '../../packet/frame-view.ts';
import { IcmpQuote, icmp } from '../../packet/icmp.ts';
import { forEachSackEdge, tcp } from '../../packet/tcp.ts';

export interface Offsets {
  readonly delta: number;
  readonly timeDelta: number;
}

export function isTranslated(offsets: Offsets): boolean {
  return offsets.delta !== 0 || offsets.timeDelta !== 0;
}

/** A copy of the guest's frame in client space. */
export function toClientSpace(view: FrameView, { delta, timeDelta }: Offsets): Buffer {
  const frame = Buffer.from(view.frame);
  const at = view.transportAt;
  const sum = at + tcp.checksum;
  replace32(frame, sum, at, at + tcp.sequence, (view.sequence + delta) >>> 0);
  if (view.timestampsAt !== 0) replace32(frame, sum, at, view.timestampsAt, (view.timestamp + timeDelta) >>> 0);
  return frame;
}

/** A copy of the client's frame in the guest's space. */
export function toGuestSpace(view: FrameView, { delta, timeDelta }: Offsets): Buffer {
  const frame = Buffer.from(view.frame);
  if (!view.hasAck) return frame;
  const at = view.transportAt;
  const sum = at + tcp.checksum;
  replace32(frame, sum, at, at + tcp.ack, (view.ack - delta) >>> 0);
  forEachSackEdge(frame, at, (edge) => replace32(frame, sum, at, edge, (read32(frame, edge) - delta) >>> 0));
  const echo = view.timestampsAt + 4;
  if (view.timestampsAt !== 0) replace32(frame, sum, at, echo, (read32(frame, echo) - timeDelta) >>> 0);
  return frame;
}

/** Gives a frame another TSval, where it lies. */
export function restamp(view: FrameView, timestamp: number): void {
  const at = view.transportAt;
  if (view.timestampsAt !== 0) replace32(view.frame, at + tcp.checksum, at, view.timestampsAt, timestamp);
}

/** Finds and translates what ICMP errors quote. */
export class QuoteTranslator {
  private readonly quote = new IcmpQuote();
  private readonly sender = new FlowKey();
  private readonly reversed = new FlowKey();
  private readonly find: (key: FlowKey) => Offsets | undefined;

  /** `find` knows the offsets of a connection, named from the guest. */
  constructor(find: (key: FlowKey) => Offsets | undefined) {
    this.find = find;
  }

  /** An error to the guest about one of its segments; the frame itself when nothing is to be translated. */
  toGuest(view: FrameView): Uint8Array {
    const offsets = this.isTcp(view) ? this.find(this.sender) : undefined;
    if (offsets === undefined || offsets.delta === 0) return view.frame;
    return this.replaced(view, tcp.sequence, -offsets.delta);
  }

  /** An error of the guest about a segment that it was sent. */
  toClient(view: FrameView): Uint8Array {
    const offsets = this.isTcp(view) ? this.find(this.reversed.reverse(this.sender)) : undefined;
    if (offsets === undefined || offsets.delta === 0 || this.quote.tcpBytes < tcp.ack + 4) return view.frame;
    return this.replaced(view, tcp.ack, offsets.delta);
  }

  private isTcp(view: FrameView): boolean {
    const { frame, quoteAt, endAt, isIpv6 } = view;
    if (quoteAt === 0 || !this.quote.parse(frame, quoteAt, endAt, isIpv6, this.sender)) return false;
    this.sender.tags = view.key.tags;
    return true;
  }

  /** A copy with `change` added to the quoted field, and both checksums that cover it updated. */
  private replaced(view: FrameView, field: number, change: number): Uint8Array {
    const frame = Buffer.from(view.frame);
    const { tcpAt, tcpBytes } = this.quote;
    const outer = view.transportAt + icmp.checksum;
    const value = (read32(frame, tcpAt + field) + change) >>> 0;
    if (tcpBytes >= tcp.checksum + 2) {
      const quoted = Buffer.from(frame.subarray(tcpAt, tcpAt + tcpBytes));
      replace32(quoted, tcp.checksum, 0, field, value);
      replace16(frame, outer, tcpAt + tcp.checksum, read16(quoted, tcp.checksum));
    }
    replace32(frame, outer, view.transportAt, tcpAt + field, value);
    return frame;
  }
}
