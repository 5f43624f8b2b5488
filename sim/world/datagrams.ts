// What is no TCP, by name: what it is, to whom, and its content. Two frames of one name say the same. A packet in
// fragments has the name that it would have had whole, when its last piece is there. For checkers: one of these for
// each way on which they look.

import { claimOf } from '../../src/packet/claim.ts';
import { FrameView } from '../../src/packet/frame-view.ts';
import { Assembler } from '../guest/wire.ts';

const udpHeaderBytes = 8;

export class DatagramNames {
  private readonly view = new FrameView();
  private readonly assembler = new Assembler();

  /**
   * Undefined: it is TCP, a piece of a packet that is not whole yet, or says only where an address is
   * (`isAnnouncement`).
   */
  nameOf(frame: Uint8Array): string | undefined {
    const view = this.view.parse(frame);
    if (view.kind === 'tcp' || isAnnouncement(frame)) return undefined;
    const to = Buffer.from(frame.subarray(0, 6)).toString('hex');
    if (view.kind !== 'fragment')
      return `${view.kind} ${to} ${textOf(frame.subarray(view.contentFrom, view.contentTo))}`;
    const packet = this.assembler.push(view);
    return packet === undefined ? undefined : `udp ${to} ${textOf(packet.subarray(udpHeaderBytes))}`;
  }
}

/** Nodes announce the guest's addresses themselves. */
export function isAnnouncement(frame: Uint8Array): boolean {
  return claimOf(frame)?.isReply === false;
}

function textOf(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('latin1');
}
