// The guest's serial console: two named pipes between QEMU and this node.
//
//    QEMU ──► console.out ──► output ──► the file of the console, cut at consoleFileBytesMax (base/writer.ts)
//                                 └────► whoever listens
//    QEMU ◄── console.in  (nobody writes to it)
//
// QEMU used to write the file itself: a guest could fill its host's disk with it, a restart emptied it, and a disk that
// hung would have held up QEMU. Here a guest that writes faster than this node reads waits, as for a real serial line,
// and what the disk is too slow for is missing in the file, which says so.
//
// Pipes and not a socket: QEMU writes byte by byte, a pipe packs these, and a socket is full after some 280 of them.

import { constants, openSync, readSync, rmSync } from 'node:fs';
import { Socket } from 'node:net';
import { growPipe, makePipe } from '../base/descriptors.ts';
import { ColoError, errorCodes } from '../base/errors.ts';
import { Writer } from '../base/writer.ts';
import { consoleFileBytesMax, consolePieceBytes, consolePipeBytes, consoleWaitingBytesMax } from './limits.ts';

/** The two ends; QEMU adds the endings itself. */
export function consolePipes(path: string): { output: string; input: string } {
  return { output: `${path}.out`, input: `${path}.in` };
}

export class SerialConsole {
  /** Called with what the guest has written, in order; the bytes are valid during the call only. */
  readonly listeners = new Set<(bytes: Uint8Array) => void>();
  private readonly path: string;
  private readonly file: Writer;
  private readonly output: number;
  private readonly reader: Socket;
  private isClosed = false;

  private constructor(path: string, output: number, file: Writer) {
    this.path = path;
    this.file = file;
    this.output = output;
    this.reader = new Socket({ fd: output, readable: true, writable: false });
    this.reader.on('data', (bytes: Buffer) => this.take(bytes));
    this.reader.on('error', () => undefined);
  }

  /** Makes the pipes, before QEMU starts; `log` is added to. */
  static open(path: string, log: string, fileBytesMax = consoleFileBytesMax): SerialConsole {
    const { output, input } = consolePipes(path);
    try {
      for (const one of [output, input]) {
        rmSync(one, { force: true });
        makePipe(one);
      }
      // For writing too: a pipe that nobody has open for writing yet would be at its end.
      const fd = openSync(output, constants.O_RDWR | constants.O_NONBLOCK);
      growPipe(fd, consolePipeBytes);
      return new SerialConsole(path, fd, newWriter(log, fileBytesMax));
    } catch (cause) {
      throw new ColoError(errorCodes.host, `the pipes of the serial console cannot be made at ${path}`, { cause });
    }
  }

  /** Reads what is left, and removes the pipes. For when QEMU is gone. */
  close(): void {
    if (this.isClosed) return;
    this.isClosed = true;
    this.reader.pause();
    for (const rest = Buffer.alloc(consolePieceBytes); ; ) {
      const bytes = readNow(this.output, rest);
      if (bytes === 0) break;
      this.take(rest.subarray(0, bytes));
    }
    this.reader.destroy();
    this.file.close();
    for (const one of Object.values(consolePipes(this.path))) rmSync(one, { force: true });
  }

  private take(bytes: Uint8Array): void {
    this.file.write(bytes);
    for (const listener of this.listeners) listener(bytes);
  }
}

function newWriter(path: string, bytesMax: number): Writer {
  return new Writer({ path, bytesMax, gap: 'text', waitingBytesMax: consoleWaitingBytesMax });
}

/** What the pipe has now; 0 when that is nothing. */
function readNow(fd: number, into: Buffer): number {
  try {
    return readSync(fd, into);
  } catch {
    return 0;
  }
}
