// An uplink that is opened again when it is gone: a device that somebody removed, a network that was set up anew, a
// switch that was started again. Meanwhile frames go nowhere, as from a card without a cable, and `problem` says why.

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
  readonly progress = { taken: 0, settled: 0, lost: 0 };
  /** Frames of uplinks that are gone, and while there was none. */
  private readonly settled = { frames: 0, lost: 0 };
  /** What those that are gone had counted. */
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
    this.progress.taken += 1;
    if (this.inner !== undefined) return this.inner.send(frame);
    this.settled.frames += 1;
    this.settled.lost += 1;
    this.settle();
  }

  unwritten(): Uint8Array[] {
    return this.inner?.unwritten() ?? [];
  }

  /** What became of all frames: of those before, and of the ones of now. */
  private settle(): void {
    const { progress } = this.inner ?? {};
    this.progress.settled = this.settled.frames + (progress?.settled ?? 0);
    this.progress.lost = this.settled.lost + (progress?.lost ?? 0);
    this.handlers.settled?.();
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
    const settled = () => this.settle();
    const inner = await this.openOne({ ...this.handlers, settled, closed: () => this.gone(inner) });
    if (this.isClosed) inner.close();
    else this.inner = inner;
  }

  private gone(inner: Uplink): void {
    if (this.inner !== inner || this.isClosed) return;
    const { counters } = this;
    Object.assign(this.before, counters);
    // What it has not written it never will.
    this.settled.lost += inner.progress.lost + inner.progress.taken - inner.progress.settled;
    this.settled.frames = this.progress.taken;
    this.inner = undefined;
    inner.close();
    this.settle();
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
