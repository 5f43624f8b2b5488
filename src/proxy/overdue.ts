// What has waited too long for its equal, and why that is: a checkpoint is then the faster way. A secondary that has
// just been loaded is cold and gets patience; while it is being loaded nothing is overdue.

import { flowText } from '../packet/flow-key.ts';
import { advance } from '../packet/sequence.ts';
import type { DatagramFlow } from './compare/datagram-flow.ts';
import type { Held, TcpStream } from './compare/tcp/stream.ts';
import type { CheckpointReason } from './reason.ts';

export class Overdue {
  /** When the SVM began to run in this epoch; undefined until then. */
  resumedAt: number | undefined = undefined;
  private readonly compareTimeoutMs: number;
  private readonly patienceMs: number;

  constructor(options: { compareTimeoutMs: number; patienceMs: number }) {
    this.compareTimeoutMs = options.compareTimeoutMs;
    this.patienceMs = options.patienceMs;
  }

  ofStream(stream: TcpStream, owedSince: number | undefined, now: number): CheckpointReason | undefined {
    const head = stream.held[0];
    if (head !== undefined && this.isOver(head.time, now)) return { kind: 'timeout', ...describeWait(stream, head) };
    if (owedSince === undefined || !this.isOver(owedSince, now)) return undefined;
    const detail = `the client waits for the acknowledgement of ${stream.owed?.ack ?? 0}`;
    return { kind: 'ack-timeout', connection: stream.text, detail };
  }

  ofFlow(flow: DatagramFlow, now: number): CheckpointReason | undefined {
    const head = flow.held[0];
    if (head === undefined || !this.isOver(head.time, now)) return undefined;
    const detail = `${flow.held.length} frames wait, the secondary sent ${flow.ahead.length} others`;
    return { kind: 'timeout', connection: flow.text, detail };
  }

  private isOver(since: number, now: number): boolean {
    if (this.resumedAt === undefined) return false;
    return now - Math.max(since, this.resumedAt + this.patienceMs) >= this.compareTimeoutMs;
  }
}

function describeWait(stream: TcpStream, head: Held): { connection: string; offset: number; detail: string } {
  const start = advance(stream.isn ?? 0, 1);
  const connection = flowText(stream.connection.key, 'tcp');
  // The SYN stands before the first byte, and is said to be at it.
  const at = (sequence: number) => (sequence === stream.isn ? 0 : (sequence - start) >>> 0);
  const secondary = stream.sKnown ? `is at ${at(stream.ahead.next)}` : 'has said nothing';
  const segments = `held segments: ${stream.held.length}, the first of ${head.payloadBytes} bytes`;
  const detail = `${segments}; the secondary ${secondary}`;
  return { connection, offset: at(head.sequence), detail };
}
