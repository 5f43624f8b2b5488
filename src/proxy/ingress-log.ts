// Ingress frames and announced ISNs since a capture, in order, with a mark for every capture. Bounded: the oldest items
// are dropped, which is packet loss to the guest.

import { Fifo } from '../base/fifo.ts';
import type { Announcement } from './connections/announcement.ts';
import { proxyLimits } from './limits.ts';

export type LogItem = { frame: Uint8Array; isn: undefined } | { announcement: Announcement; isn: number };

export class IngressLog {
  private readonly queue = new Fifo<LogItem>();
  /** Position of the oldest item, counted from the first ever. */
  private first = 0;
  private marks: { epoch: number; position: number }[] = [];
  bytes = 0;
  dropped = 0;

  get length(): number {
    return this.queue.length;
  }

  get hasMarkers(): boolean {
    return this.marks.length > 0;
  }

  pushFrame(frame: Uint8Array): void {
    this.bytes += frame.length;
    this.push({ frame: Buffer.from(frame), isn: undefined });
  }

  pushIsn(announcement: Announcement, isn: number): void {
    this.push({ announcement, isn });
  }

  private push(item: LogItem): void {
    this.queue.push(item);
    while (this.queue.length > proxyLimits.logItemsMax || this.bytes > proxyLimits.logBytesMax) {
      this.shift();
      this.dropped += 1;
    }
  }

  private shift(): void {
    const item = this.queue.shift();
    this.first += 1;
    if (item?.isn === undefined && item !== undefined) this.bytes -= item.frame.length;
  }

  /** The next item is the first after the capture of `epoch`. An older mark of the same number is void. */
  mark(epoch: number): void {
    this.marks = this.marks.filter((mark) => mark.epoch < epoch);
    this.marks.push({ epoch, position: this.first + this.queue.length });
  }

  unmark(epoch: number): void {
    this.marks = this.marks.filter((mark) => mark.epoch !== epoch);
  }

  /** Drops what came before the capture of `epoch`, and the marks up to it. */
  dropBefore(epoch: number): void {
    const mark = this.marks.find((one) => one.epoch === epoch);
    while (mark !== undefined && this.first < mark.position && this.queue.length > 0) this.shift();
    this.marks = this.marks.filter((one) => one.epoch > epoch);
  }

  *items(): Generator<LogItem> {
    yield* this.queue;
  }

  clear(): void {
    this.first += this.queue.length;
    this.queue.clear();
    this.bytes = 0;
  }
}
