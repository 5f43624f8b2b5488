// Copies the changed blocks of a disk to the secondary while the guest writes on, and every write of the guest goes to
// the secondary as well. Both go the same way, one after the other, so only one thing can go wrong: that something
// older than a write of the guest is sent behind it. So what the guest wrote while a block was read is left out of what
// was read.
//
//    read  r0 ─────────── r1 ─► send what was read, without W
//              guest's write W passes
//
//    passed before r0: the image had it already (a write is in the image before it is mirrored), so it was read
//    passes after r1: it comes behind, and is newer
//
// Pure, apart from its ports.

import { changedReadBytes } from './limits.ts';

export interface Range {
  start: number;
  end: number;
}

export interface ChangedCopyPorts {
  /** What is there now; undefined for zeroes. */
  read(start: number, length: number): Promise<Buffer | undefined>;
  /** Sends it, at once; resolves when the secondary's side took it. */
  send(start: number, length: number, data: Buffer | undefined): Promise<void>;
}

export class ChangedCopy {
  private readonly ports: ChangedCopyPorts;
  private reading: Range | undefined;
  private passed: Range[] = [];

  constructor(ports: ChangedCopyPorts) {
    this.ports = ports;
  }

  /** A write of the guest passes on its way to the secondary. */
  wrote(start: number, length: number): void {
    const { reading } = this;
    if (reading === undefined || start >= reading.end || start + length <= reading.start) return;
    this.passed.push({ start, end: start + length });
  }

  /** Copies one range. */
  async copy({ start, end }: Range): Promise<void> {
    for (let at = start; at < end; at += changedReadBytes)
      await this.copyPart(at, Math.min(end, at + changedReadBytes));
  }

  private async copyPart(start: number, end: number): Promise<void> {
    this.reading = { start, end };
    this.passed = [];
    const data = await this.ports.read(start, end - start);
    const parts = without({ start, end }, this.passed);
    this.reading = undefined;
    // All of it before anything else can pass.
    await Promise.all(
      parts.map((part) =>
        this.ports.send(part.start, part.end - part.start, data?.subarray(part.start - start, part.end - start)),
      ),
    );
  }
}

/** What is left of `whole` without `holes`. */
export function without(whole: Range, holes: readonly Range[]): Range[] {
  const parts: Range[] = [];
  let at = whole.start;
  for (const hole of holes.toSorted((left, right) => left.start - right.start)) {
    if (hole.start > at) parts.push({ start: at, end: Math.min(hole.start, whole.end) });
    at = Math.max(at, hole.end);
    if (at >= whole.end) return parts;
  }
  parts.push({ start: at, end: whole.end });
  return parts;
}
