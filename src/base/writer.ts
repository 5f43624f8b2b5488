// Files that may be written to from anywhere and cost the event loop nothing: logs and consoles. Beats and frames
// are carried by that loop, so a disk that is full, slow or gone must cost lines and nothing else.
//
//    write ─► (bound of what waits) ─► thread (writer-thread.ts) ─► file, cut at bytesMax
//                    └─ beyond: lost, counted, told in `losses`
//
// One thread serves all files of the process; when one file hangs, the others of the process are lost too, and that is
// all. Not the pool of threads that Node has for files: there four calls that hang would hold up the arbiter and the
// disks.
//
// `flushWriters` waits for the thread, within a bound and without the loop: for a process that is about to end. One
// whose thread hangs ends itself with SIGKILL, since an exit in order would wait for the thread for ever.

import { Worker } from 'node:worker_threads';
import { errorText } from './errors.ts';
import { exitFlushMs, writerBytesMax } from './limits.ts';
import { pieceCostBytes, slots, type WriterOrder, type WriterWord } from './writer-message.ts';

export interface WriterOptions {
  /** undefined: standard error, which is neither cut nor closed. */
  path: string | undefined;
  /** Size at which the file is put aside, so that twice this is kept. */
  bytesMax: number;
  /** Where it is put; PATH.old unless given. */
  old?: string;
  /** How the file itself says that something is missing: as a line of a log, as text, or not at all. */
  gap?: 'json' | 'text' | 'none';
  /** Bytes that may wait to be written. */
  waitingBytesMax?: number;
}

/** What could not be written, since the start. */
export interface Losses {
  path: string;
  pieces: number;
  bytes: number;
  /** Why not now; '' when it can be written. */
  problem: string;
}

export class Writer {
  readonly path: string;
  private readonly id: number;
  private readonly counters = new BigInt64Array(new SharedArrayBuffer(8 * slots.count));
  private readonly waitingBytesMax: number;
  private takenBytes = 0;
  private isClosed = false;
  private problem = '';

  constructor(options: WriterOptions) {
    const { path, bytesMax, old, gap = 'none' } = options;
    this.path = path ?? 'standard error';
    this.waitingBytesMax = options.waitingBytesMax ?? writerBytesMax;
    this.id = thread.add((problem) => {
      this.problem = problem;
    });
    const counters = this.counters.buffer;
    const where = { id: this.id, path: path ?? '', old: old ?? `${path}.old` };
    thread.tell({ kind: 'open', ...where, bytesMax, gap, counters });
    open.add(this);
  }

  /** Never throws and never waits. The bytes are copied. */
  write(data: string | Uint8Array): void {
    if (this.isClosed) return;
    const bytes = typeof data === 'string' ? new TextEncoder().encode(data) : Uint8Array.from(data);
    const cost = bytes.length + pieceCostBytes;
    if (this.waitingBytes + cost > this.waitingBytesMax || thread.isGone) {
      Atomics.add(this.counters, slots.lost, 1n);
      Atomics.add(this.counters, slots.lostBytes, BigInt(bytes.length));
      return;
    }
    this.takenBytes += cost;
    thread.tell({ kind: 'write', id: this.id, data: bytes }, [bytes.buffer]);
  }

  /** Taken, and not yet written or lost; with what a piece costs besides. */
  get waitingBytes(): number {
    return this.takenBytes - Number(Atomics.load(this.counters, slots.doneBytes));
  }

  get losses(): Losses {
    const pieces = Number(Atomics.load(this.counters, slots.lost));
    const bytes = Number(Atomics.load(this.counters, slots.lostBytes));
    return { path: this.path, pieces, bytes, problem: thread.whyGone ?? this.problem };
  }

  /** What was taken is still written. */
  close(): void {
    if (this.isClosed) return;
    this.isClosed = true;
    open.delete(this);
    thread.tell({ kind: 'close', id: this.id });
    thread.remove(this.id);
  }
}

/** Every file of this process that has lost something, or cannot be written. */
export function lossesOfAll(): Losses[] {
  return [...open].map((one) => one.losses).filter(({ pieces, problem }) => pieces > 0 || problem !== '');
}

/**
 * Waits until everything is written, at most so long; the loop stands still. False when the thread did not come to it.
 */
export function flushWriters(withinMs: number): boolean {
  return thread.flush(withinMs);
}

const open = new Set<Writer>();

/** The one thread of this process, started when it is first needed. */
class WriterThread {
  whyGone: string | undefined;
  private worker: Worker | undefined;
  private readonly handled = new Int32Array(new SharedArrayBuffer(4));
  private told = 0;
  private ids = 0;
  private readonly listeners = new Map<number, (problem: string) => void>();

  get isGone(): boolean {
    return this.whyGone !== undefined;
  }

  add(listener: (problem: string) => void): number {
    this.ids += 1;
    this.listeners.set(this.ids, listener);
    return this.ids;
  }

  remove(id: number): void {
    this.listeners.delete(id);
  }

  tell(order: WriterOrder, transfer: ArrayBuffer[] = []): void {
    this.worker ??= this.start();
    this.told = (this.told + 1) | 0;
    this.worker.postMessage(order, transfer);
  }

  flush(withinMs: number): boolean {
    const deadline = performance.now() + withinMs;
    for (;;) {
      const seen = Atomics.load(this.handled, 0);
      if (seen === this.told || this.isGone) return true;
      const leftMs = deadline - performance.now();
      if (leftMs <= 0) return false;
      Atomics.wait(this.handled, 0, seen, leftMs);
    }
  }

  private start(): Worker {
    const worker = new Worker(new URL('./writer-thread.ts', import.meta.url), {
      ...{ workerData: this.handled.buffer, execArgv: [] },
    });

    worker.on('message', ({ id, problem }: WriterWord) => this.listeners.get(id)?.(problem));
    worker.on('error', (error) => {
      this.whyGone = `the thread that writes files has ended: ${errorText(error)}`;
    });
    process.on('exit', () => {
      if (!this.flush(exitFlushMs)) process.kill(process.pid, 'SIGKILL');
    });
    worker.unref();
    return worker;
  }
}

const thread = new WriterThread();
