// The primary's end: every write of the guest, numbered and on its way to the secondary, before QEMU calls it done.
//
//    guest ─► QEMU ─┬─► the image                            (reads stay here)
//                   └─► mirror job ─► NBD ─► sink ─► link ─► the secondary's journal
//                                              ◄── held(position)
//
// When a write is answered (and with it the guest's, because the mirror is write-blocking):
//
//    local        when it is with the link, the link is not congested, and no more than windowBytes are not held yet
//    replicated   when the secondary's journal has it on its disk
//
// So a slow secondary slows the guest's writes instead of filling memory, and shows as `backlogBytes`. Once the
// secondary is lost nothing is forwarded, everything is answered at once, and the mirror is cancelled. Never with an
// error: a mirror job that ends by itself while it is cancelled ends QEMU (an assertion of its, seen in 7.2), and the
// guest's write is done either way. Pure, apart from its ports.

import { Fifo } from '../base/fifo.ts';
import { type NbdError, nbdErrors } from '../nbd/protocol.ts';
import type { NbdRequest } from '../nbd/session.ts';
import { recordBytesMax, windowBytes } from './limits.ts';
import { diskError, diskMessages, encodeMark, encodeRecordHead, type RecordKind, recordKinds } from './message.ts';

export type Answer = (error: NbdError, data?: Uint8Array) => void;

export interface SinkPorts {
  /** Queues a message of the bulk link; what a part holds does not change any more. */
  send(type: number, ...parts: Uint8Array[]): void;
  /** Resolves when the link is not congested, or is over. */
  drain(): Promise<void>;
}

interface Waiting {
  position: number;
  replicated: boolean;
  answer: Answer;
  drained: boolean;
}

export class DiskSink {
  readonly counters = { writes: 0, writtenBytes: 0, zeroedBytes: 0 };
  private readonly ports: SinkPorts;
  private readonly replicated: readonly boolean[];
  private readonly windowBytes: number;
  private position = 0;
  private heldPosition = 0;
  private readonly unheld = new Fifo<{ position: number; bytes: number }>();
  private unheldBytes = 0;
  private readonly waiting = new Fifo<Waiting>();
  private failure: string | undefined;

  /** `replicated`: for each disk, whether its writes wait for the secondary. `from`: the position before the first. */
  constructor(ports: SinkPorts, options: { replicated: readonly boolean[]; windowBytes?: number; from?: number }) {
    this.ports = ports;
    this.replicated = options.replicated;
    this.windowBytes = options.windowBytes ?? windowBytes;
    this.position = options.from ?? 0;
    this.heldPosition = this.position;
  }

  /** The position of the newest record. */
  get newest(): number {
    return this.position;
  }

  /** Bytes that the secondary does not hold yet. */
  get backlogBytes(): number {
    return this.unheldBytes;
  }

  /** Why nothing is forwarded any more. */
  get failed(): string | undefined {
    return this.failure;
  }

  /** A request of QEMU for disk number `disk`. */
  request(disk: number, request: NbdRequest, answer: Answer): void {
    if (this.failure !== undefined) return answer(request.kind === 'read' ? nbdErrors.invalid : nbdErrors.none);
    switch (request.kind) {
      case 'write':
        this.counters.writes += 1;
        this.counters.writtenBytes += request.length;
        this.forwardData(disk, request.offset, request.data);
        return this.answerLater(disk, answer);
      case 'writeZeroes':
      case 'trim':
        // A trimmed region may read as anything, so also as zeroes; the replica gets a hole.
        this.counters.zeroedBytes += request.length;
        this.forward({ disk, kind: recordKinds.zeroes, offset: request.offset, length: request.length });
        return this.answerLater(disk, answer);
      case 'flush':
        return answer(nbdErrors.none);
      case 'read':
        // The mirror never reads what it writes to.
        return answer(nbdErrors.invalid);
    }
  }

  /** The secondary's journal holds everything up to `position`. */
  held(position: number): void {
    if (position <= this.heldPosition || position > this.position) return;
    this.heldPosition = position;
    for (let oldest = this.unheld.peek(); oldest !== undefined; oldest = this.unheld.peek()) {
      if (oldest.position > position) break;
      this.unheldBytes -= oldest.bytes;
      this.unheld.shift();
    }
    this.answerDue();
  }

  /**
   * A capture, with the guest stopped and so the mirror quiet: all so far belongs to `epoch`. Throws when some is lost.
   */
  mark(epoch: number): number {
    if (this.failure !== undefined) throw diskError(`the disks are not mirrored any more: ${this.failure}`);
    this.ports.send(diskMessages.mark, encodeMark({ epoch, position: this.position }));
    return this.position;
  }

  /** Nothing is forwarded from now on, and nothing waits: the mirror is to be cancelled. */
  fail(why: string): void {
    this.failure ??= why;
    for (let entry = this.waiting.shift(); entry !== undefined; entry = this.waiting.shift())
      entry.answer(nbdErrors.none);
    this.unheld.clear();
    this.unheldBytes = 0;
  }

  private forwardData(disk: number, offset: number, data: Buffer): void {
    for (let at = 0; at < data.length; at += recordBytesMax) {
      const part = data.subarray(at, at + recordBytesMax);
      this.forward({ disk, kind: recordKinds.data, offset: offset + at, length: part.length }, part);
    }
  }

  private forward(
    at: { disk: number; kind: RecordKind; offset: number; length: number },
    data: Uint8Array = new Uint8Array(0),
  ): void {
    this.position += 1;
    this.ports.send(diskMessages.record, encodeRecordHead({ ...at, position: this.position }), data);
    this.unheld.push({ position: this.position, bytes: data.length });
    this.unheldBytes += data.length;
  }

  private answerLater(disk: number, answer: Answer): void {
    const entry = { position: this.position, replicated: this.replicated[disk] === true, answer, drained: false };
    this.waiting.push(entry);
    void this.ports.drain().then(() => {
      entry.drained = true;
      this.answerDue();
    });
  }

  private answerDue(): void {
    for (let entry = this.waiting.peek(); entry !== undefined; entry = this.waiting.peek()) {
      if (!this.isDue(entry)) return;
      this.waiting.shift();
      entry.answer(nbdErrors.none);
    }
  }

  private isDue(entry: Waiting): boolean {
    if (entry.replicated) return entry.position <= this.heldPosition;
    return entry.drained && this.unheldBytes <= this.windowBytes;
  }
}
