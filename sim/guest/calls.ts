// Connections that the guest opens itself: it calls one client after the other, gives a numbered report, waits for the
// receipt and hangs up. The number goes on by one when the receipt is there, wherever the guest runs by then; the
// called client takes every report exactly once and in its order.
//
//    report    client u32 │ number u32 │ sum u32 of both          receipt   number u32 │ sum u32

import type { Address } from '../../src/packet/build.ts';
import type { FrameView } from '../../src/packet/frame-view.ts';
import { sumOf } from './protocol.ts';
import type { TcpStack, TcpState } from './tcp.ts';
import { sourceIp } from './wire.ts';

/** A client listens here for the guest's calls. */
export const reportPort = 9000;
const firstLocalPort = 30_000;
const localPorts = 40;
export const reportBytes = 12;
export const receiptBytes = 8;

/** What the guest's registers hold of its calls. */
export interface Calls {
  number: number;
  tcp: TcpState | undefined;
  input: Uint8Array;
  nextAt: number;
  /** A call that was cut off: never, as long as one copy lives. */
  broken: boolean;
}

export const noCalls = (): Calls => ({ number: 1, tcp: undefined, input: new Uint8Array(0), nextAt: 0, broken: false });

export function encodeReport(client: number, number: number): Uint8Array {
  const bytes = Buffer.alloc(reportBytes);
  bytes.writeUInt32BE(client, 0);
  bytes.writeUInt32BE(number, 4);
  bytes.writeUInt32BE(sumOf(bytes.subarray(0, 8)), 8);
  return bytes;
}

export function readReport(bytes: Uint8Array): { client: number; number: number } | undefined {
  const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  if (view.readUInt32BE(8) !== sumOf(bytes.subarray(0, 8))) return undefined;
  return { client: view.readUInt32BE(0), number: view.readUInt32BE(4) };
}

export function encodeReceipt(number: number): Uint8Array {
  const bytes = Buffer.alloc(receiptBytes);
  bytes.writeUInt32BE(number, 0);
  bytes.writeUInt32BE(sumOf(bytes.subarray(0, 4)), 4);
  return bytes;
}

/** The guest's side: what it does with its calls; all of the state is in its registers. */
export class Caller {
  private readonly stack: TcpStack;
  private readonly clients: readonly Address[];
  private readonly everyMs: number;

  private readonly linger: (tcp: TcpState) => void;

  /** `linger` keeps an ended connection for a while, so that a late segment of it is answered. */
  constructor(
    stack: TcpStack,
    { clients, everyMs }: { clients: readonly Address[]; everyMs: number },
    linger: (tcp: TcpState) => void,
  ) {
    this.stack = stack;
    this.linger = linger;
    this.clients = clients;
    this.everyMs = everyMs;
  }

  deadline(calls: Calls): number {
    return calls.tcp === undefined ? calls.nextAt : this.stack.deadline(calls.tcp);
  }

  tick(calls: Calls, now: number, isn: () => number): void {
    if (calls.tcp !== undefined) {
      this.stack.tick(calls.tcp, now);
      this.lookForEnd(calls, now);
      return;
    }
    const client = this.clients[calls.number % this.clients.length];
    if (now < calls.nextAt || client === undefined) return;
    const port = firstLocalPort + (calls.number % localPorts);
    calls.input = new Uint8Array(0);
    calls.tcp = this.stack.connect({ ...client, port: reportPort }, port, isn(), now);
  }

  /** True: the segment is of the call. */
  input(calls: Calls, view: FrameView, now: number): boolean {
    const { tcp } = calls;
    if (tcp === undefined || tcp.localPort !== view.targetPort || tcp.remote.ip !== sourceIp(view)) return false;
    this.stack.input(tcp, view, now);
    this.lookForEnd(calls, now);
    return true;
  }

  opened(calls: Calls, now: number): void {
    if (calls.tcp !== undefined)
      this.stack.send(calls.tcp, encodeReport(calls.number % this.clients.length, calls.number), now);
  }

  data(calls: Calls, bytes: Uint8Array, now: number): void {
    calls.input = Uint8Array.from(Buffer.concat([calls.input, bytes]));
    if (calls.input.length < receiptBytes || calls.tcp === undefined) return;
    if (!Buffer.from(calls.input).equals(encodeReceipt(calls.number))) calls.broken = true;
    this.stack.finish(calls.tcp, now);
  }

  private lookForEnd(calls: Calls, now: number): void {
    if (calls.tcp === undefined || !this.stack.isDone(calls.tcp)) return;
    if (calls.input.length < receiptBytes) calls.broken = true;
    this.linger(calls.tcp);
    calls.tcp = undefined;
    calls.number += 1;
    calls.nextAt = now + this.everyMs;
  }
}
