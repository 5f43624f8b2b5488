// Everything of the PVM that waits in the current epoch: whole frames in remus mode, segments and datagrams in their
// flows otherwise. In the order in which the guest sent it, it leaves by a commit; copied into a checkpoint, it is what
// a survivor may have to say.

import { Fifo } from '../../base/fifo.ts';
import { FrameView } from '../../packet/frame-view.ts';
import type { ActiveFlows } from '../compare/active-flows.ts';
import type { DatagramComparer } from '../compare/datagram.ts';
import type { DatagramFlow } from '../compare/datagram-flow.ts';
import { classOf } from '../compare/sink.ts';
import type { TcpComparer } from '../compare/tcp/comparer.ts';
import { TcpStream } from '../compare/tcp/stream.ts';
import type { ConnectionTable } from '../connections/connection-table.ts';
import { restamp } from '../connections/translate.ts';
import { proxyLimits } from '../limits.ts';
import type { Egress } from './egress.ts';
import { encodedFrameBytes, encodeFrames } from './held-frames.ts';

/** A frame of the PVM, client space, that waits as a whole. */
export interface Waiting {
  frame: Buffer;
  time: number;
  order: number;
}

/** Something held, to be put in the order in which the guest sent it. */
export interface InOrder {
  order: number;
  frame: Uint8Array;
  isTcpData: boolean;
  leave: () => void;
}

interface Parts {
  active: ActiveFlows;
  tcp: TcpComparer;
  datagrams: DatagramComparer;
  table: ConnectionTable<TcpStream>;
  egress: Egress;
  /** What has left the gate and waits in the uplink. */
  unwritten: () => Uint8Array[];
}

export class HeldOutput {
  /** Remus: everything of this epoch. */
  readonly raw = new Fifo<Waiting>();
  private readonly parts: Parts;
  private readonly view = new FrameView();

  constructor(parts: Parts) {
    this.parts = parts;
  }

  /** In the order in which the guest sent it. */
  inOrder(): InOrder[] {
    const { active, egress } = this.parts;
    const all: InOrder[] = [];
    for (const waiting of this.raw) {
      const { frame, order } = waiting;
      const frameClass = classOf(this.view.parse(frame));
      const isTcpData = frameClass === 'data' && this.view.kind === 'tcp';
      all.push({ order, frame, isTcpData, leave: () => egress.leave(frame, frameClass, waiting) });
    }
    for (const flow of active.all) {
      if (flow instanceof TcpStream) this.addTcp(all, flow);
      else this.addDatagrams(all, flow as DatagramFlow);
    }
    return all.sort((a, b) => a.order - b.order);
  }

  private addTcp(all: InOrder[], stream: TcpStream): void {
    const { tcp, egress } = this.parts;
    for (const held of stream.held) {
      const { order, frame } = held;
      const leave = () => tcp.leaveByCommit(stream, held, egress.now);
      all.push({ order, frame, isTcpData: held.payloadBytes > 0, leave });
    }
  }

  private addDatagrams(all: InOrder[], flow: DatagramFlow): void {
    const { datagrams } = this.parts;
    datagrams.forEachHeld(flow, (order, frame, leave) => all.push({ order, frame, isTcpData: false, leave }));
  }

  /**
   * What travels with a checkpoint: what waits in the uplink, what the gate keeps, what waits, and what is owed, as far
   * as there is room.
   */
  encode(): Uint8Array {
    const { active, tcp, egress, unwritten } = this.parts;
    const all = this.inOrder();
    const bytes = all.reduce((sum, { frame }) => sum + frame.length, 0);
    const isTooMuch = bytes + egress.gate.bytes > proxyLimits.heldBytesInCheckpointMax;
    const frames: Uint8Array[] = [];
    let room: number = proxyLimits.heldBytesInCheckpointMax;
    const add = (frame: Uint8Array) => {
      const needed = encodedFrameBytes(frame);
      if (needed > room) return;
      room -= needed;
      frames.push(frame);
    };
    for (const frame of unwritten()) add(this.upToDate(frame));
    for (const frame of egress.gate.frames()) add(this.upToDate(frame));
    for (const { frame, isTcpData } of all) if (!isTooMuch || !isTcpData) add(this.upToDate(frame));
    for (const flow of active.all) {
      const ack = flow instanceof TcpStream ? tcp.owed.frame(flow) : undefined;
      if (ack !== undefined) add(ack);
    }
    return encodeFrames(frames);
  }

  /**
   * A survivor may send `frame` when later ones of its connection have left: with its own TSval the client would drop
   * it.
   */
  private upToDate(frame: Uint8Array): Uint8Array {
    const view = this.view.parse(frame);
    if (view.kind !== 'tcp' || view.timestampsAt === 0) return frame;
    const stream = this.parts.table.ofGuestFrame(view)?.attachment;
    if (stream?.pTimeKnown !== true || stream.pTime === view.timestamp) return frame;
    const copy = Buffer.from(frame);
    restamp(view.parse(copy), stream.pTime);
    return copy;
  }
}
