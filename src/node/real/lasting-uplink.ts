// An uplink that is opened again when it is gone: a device that somebody removed, a network that was set up anew, a switch that
// was started again. Meanwhile frames go nowhere, as from a card without a cable, and `problem` says why.

import { type Clock, systemClock } from '../../base/clock.ts';
import { errorText } from '../../base/errors.ts';
import type { Uplink } from '../../netdev/endpoint.ts';
import type { FrameHandlers } from '../../netdev/frame-socket.ts';
import { uplinkAgainMs } from '../../netdev/limits.ts';

type OpenUplink = (handlers: FrameHandlers) => Promise<Uplink>;

export class LastingUplink implements Uplink {
  private readonly openOne: OpenUplink;
  private readonly handlers: FrameHandlers;
  private readonly clock: Clock;
  private inner: Uplink | undefined;
  private why = '';
  private isClosed = false;
  /** Of those that are gone. */
  private readonly before = { framesIn: 0, bytesIn: 0, framesOut: 0, bytesOut: 0 };

  private constructor(openOne: OpenUplink, handlers: FrameHandlers, clock: Clock) {
    this.openOne = openOne;
    this.handlers = handlers;
    this.clock = clock;
  }

  /** Rejects when it cannot be opened the first time. */
  static async open(openOne: OpenUplink, handlers: FrameHandlers, clock: Clock = systemClock): Promise<LastingUplink> {
    const uplink = new LastingUplink(openOne, handlers, clock);
    await uplink.open();
    return uplink;
  }

  send(frame: Uint8Array): void {
    this.inner?.send(frame);
  }

  pause(): void {
    this.inner?.pause();
  }

  resume(): void {
    this.inner?.resume();
  }

  close(): void {
    this.isClosed = true;
    this.inner?.close();
    this.inner = undefined;
  }

  get problem(): string {
    return this.inner === undefined ? this.why : this.inner.problem;
  }

  get counters() {
    const now = this.inner?.counters;
    const sum = (name: keyof Uplink['counters']) => this.before[name] + (now?.[name] ?? 0);
    return {
      framesIn: sum('framesIn'),
      bytesIn: sum('bytesIn'),
      framesOut: sum('framesOut'),
      bytesOut: sum('bytesOut'),
    };
  }

  private async open(): Promise<void> {
    const inner = await this.openOne({ ...this.handlers, closed: () => this.gone(inner) });
    if (this.isClosed) inner.close();
    else this.inner = inner;
  }

  private gone(inner: Uplink): void {
    if (this.inner !== inner || this.isClosed) return;
    const { counters } = this;
    Object.assign(this.before, counters);
    this.inner = undefined;
    inner.close();
    this.why = 'its device or socket is gone';
    this.handlers.closed();
    this.again();
  }

  private again(): void {
    this.clock.after(uplinkAgainMs, () => {
      if (this.isClosed) return;
      this.open().catch((error: unknown) => {
        this.why = errorText(error);
        this.again();
      });
    });
  }
}
