// The thread that writes the files of writer.ts: here a disk may be full, slow or gone, and nobody waits for it.
//
//    write ─► cut when it would grow beyond bytesMax (file ─► old) ─► write ─► handled + 1
//                                                  fails ─► lost + 1, and said in the file when it can be written again
//
// Every call is synchronous, since this thread has nothing else to do. A file that was removed or moved away is made
// anew. One that cannot be renamed is not written any more rather than grow.

import { closeSync, fstatSync, openSync, renameSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import { type MessagePort, parentPort, workerData } from 'node:worker_threads';
import { errorText } from './errors.ts';
import { pipeFullMsMax, pipePollMs } from './limits.ts';
import { makeFolder } from './make-folder.ts';
import { type OpenOrder, pieceCostBytes, slots, type WriterOrder, type WriterWord } from './writer-message.ts';

const handled = new Int32Array(workerData as SharedArrayBuffer);
const standardError = 2;

class Target {
  private readonly order: OpenOrder;
  private readonly port: MessagePort;
  private readonly counters: BigInt64Array;
  private fd: number | undefined;
  private told = 0n;
  private problem = '';
  /** The last write ended in the middle of what it was to write. */
  private torn = false;

  constructor(order: OpenOrder, port: MessagePort) {
    this.order = order;
    this.port = port;
    this.counters = new BigInt64Array(order.counters);
  }

  write(data: Uint8Array): void {
    try {
      const fd = this.room(data.length);
      const lost = Atomics.load(this.counters, slots.lost);
      const gap = lost === this.told ? '' : this.gap(lost - this.told);
      const cut = this.torn && this.order.gap !== 'none' ? '\n' : '';
      if (cut !== '' || gap !== '') writeAll(fd, Buffer.from(cut + gap));
      this.torn = true;
      writeAll(fd, data);
      this.torn = false;
      this.told = lost;
      this.tell('');
    } catch (error) {
      Atomics.add(this.counters, slots.lost, 1n);
      Atomics.add(this.counters, slots.lostBytes, BigInt(data.length));
      this.tell(errorText(error));
    } finally {
      Atomics.add(this.counters, slots.doneBytes, BigInt(data.length + pieceCostBytes));
    }
  }

  close(): void {
    const { fd } = this;
    this.fd = undefined;
    if (fd !== undefined && fd !== standardError) closeSync(fd);
  }

  /** The open file, with room for so many bytes within its bound. */
  private room(bytes: number): number {
    const fd = this.open();
    const stat = fstatSync(fd);
    if (!stat.isFile() || fd === standardError) return fd;
    if (stat.nlink > 0 && stat.size + bytes <= this.order.bytesMax) return fd;
    this.close();
    if (stat.nlink > 0 && stat.size > 0) renameSync(this.order.path, this.order.old);
    return this.open();
  }

  private open(): number {
    if (this.fd !== undefined) return this.fd;
    const { path } = this.order;
    if (path === '') this.fd = standardError;
    else {
      makeFolder(dirname(path), 0o700);
      this.fd = openSync(path, 'a', 0o600);
    }
    return this.fd;
  }

  private gap(lost: bigint): string {
    const { gap } = this.order;
    if (gap === 'text') return `\r\n[colo: something is missing here, ${lost} pieces: ${this.why()}]\r\n`;
    if (gap === 'none') return '';
    const line = {
      level: 40,
      time: new Date().toISOString(),
      lost: Number(lost),
      why: this.why(),
      msg: 'lines are lost',
    };
    return `${JSON.stringify(line)}\n`;
  }

  private why(): string {
    return this.problem === '' ? 'they came faster than they could be written' : this.problem;
  }

  private tell(problem: string): void {
    if (problem === this.problem) return;
    this.problem = problem;
    this.port.postMessage({ id: this.order.id, problem } satisfies WriterWord);
  }
}

function writeAll(fd: number, data: Uint8Array): void {
  for (let at = 0, waitedMs = 0; at < data.length; )
    try {
      at += writeSync(fd, data, at, data.length - at);
    } catch (error) {
      // Standard error may be a pipe whose reader is slow, and not block.
      const isFull = error instanceof Error && 'code' in error && error.code === 'EAGAIN';
      if (!isFull || waitedMs >= pipeFullMsMax) throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, pipePollMs);
      waitedMs += pipePollMs;
    }
}

function serve(port: MessagePort): void {
  const targets = new Map<number, Target>();
  port.on('message', (order: WriterOrder) => {
    if (order.kind === 'open') targets.set(order.id, new Target(order, port));
    else if (order.kind === 'write') targets.get(order.id)?.write(order.data);
    else {
      targets.get(order.id)?.close();
      targets.delete(order.id);
    }
    Atomics.add(handled, 0, 1);
    Atomics.notify(handled, 0);
  });
}

if (parentPort !== null) serve(parentPort);
