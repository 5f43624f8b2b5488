// What happened, one line per event: a ring of the last lines for a failing seed, all of them for --trace, and a
// running hash over all of them, by which two runs are compared.

import { crc32 } from 'node:zlib';

const kept = 60;

export class Trace {
  hash = 0;
  lines = 0;
  private readonly ring: string[] = [];
  private readonly write: ((line: string) => void) | undefined;

  constructor(write: ((line: string) => void) | undefined) {
    this.write = write;
  }

  add(now: number, who: string, what: string): void {
    const line = `${now.toFixed(3).padStart(10)} ${who.padEnd(4)} ${what}`;
    this.lines += 1;
    this.hash = crc32(line, this.hash);
    this.ring.push(line);
    if (this.ring.length > kept * 2) this.ring.splice(0, kept);
    this.write?.(line);
  }

  last(count: number): string[] {
    return this.ring.slice(-count);
  }
}
