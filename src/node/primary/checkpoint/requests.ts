// Who waits for a checkpoint that was asked for by hand: each is answered by one that began after the request, or told
// why there is none.

interface Waiter {
  request: number;
  resolve: () => void;
  reject: (error: Error) => void;
}

export class CheckpointRequests {
  private waiters: Waiter[] = [];
  private newest = 0;

  /** A request; its number is for whoever makes checkpoints. */
  add(): { request: number; done: Promise<void> } {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.newest += 1;
    this.waiters.push({ request: this.newest, resolve, reject });
    return { request: this.newest, done: promise };
  }

  /** Requests up to this one are done. */
  answer(upTo: number): void {
    for (const { request, resolve } of this.waiters) if (request <= upTo) resolve();
    this.waiters = this.waiters.filter(({ request }) => request > upTo);
  }

  rejectAll(error: Error): void {
    for (const { reject } of this.waiters.splice(0)) reject(error);
  }
}
