// Pages against what the secondary has of them already: equal ones are left out, others travel as the difference.
//
//    primary    page of this capture  XOR  the same page of the newest committed one  ─► mostly zeros, small by LZ4
//    secondary  difference            XOR  the same page of the shadow                ─► the page
//
// The newest committed checkpoint is the only base that both sides are sure of: its pages lie in the shadow byte for
// byte, and a checkpoint that builds on another one is refused (`base` of `begin`). A page that is not in it travels as
// it is, and so does one whose difference has no more zeros than the page itself (a page that was cleared).
//
// The primary keeps the pages of that checkpoint for it: their buffer, no copy, and only up to deltaBaseBytesMax.

import { assert } from '../base/assert.ts';
import { PageRuns, pageSize } from '../base/page-runs.ts';

/** The pages of a committed checkpoint: `contents` are those of `runs`, one behind the other. */
export interface DeltaBase {
  runs: PageRuns;
  contents: Uint8Array;
}

/** Pages as they travel. `deltas` says which of `runs` are differences. */
export interface DeltaBatch {
  runs: PageRuns;
  deltas: PageRuns;
  contents: Uint8Array;
}

const wordBytes = 4;
const pageWords = pageSize / wordBytes;

/** Encodes the batches of one checkpoint, which must come in ascending order. */
export class DeltaEncoder {
  private readonly base: DeltaBase;
  private readonly baseWords: Int32Array;
  /** The base's run that is looked at, and where its contents begin. */
  private run = 0;
  private runAt = 0;

  constructor(base: DeltaBase) {
    assert(base.contents.length === base.runs.bytes, 'the contents are those of the runs');
    this.base = base;
    this.baseWords = words(base.contents);
  }

  /**
   * What travels of a batch: `raw` are the contents of `runs`. It lies in `memory`, as many bytes as `raw` or more; it
   * is nothing at all when every page is equal.
   */
  encode(runs: PageRuns, raw: Uint8Array, memory: Buffer): DeltaBatch {
    const batch = { runs: new PageRuns(), deltas: new PageRuns(), contents: memory.subarray(0, raw.length) };
    const source = words(raw);
    const target = words(batch.contents);
    let from = 0;
    let to = 0;
    runs.forEach((start, end) => {
      for (let page = start; page < end; page += pageSize, from += pageWords) {
        const kind = this.encodePage(page, { source, from, target, to });
        if (kind === 'equal') continue;
        batch.runs.add(page, page + pageSize);
        if (kind === 'delta') batch.deltas.add(page, page + pageSize);
        to += pageWords;
      }
    });
    batch.contents = batch.contents.subarray(0, to * wordBytes);
    return batch;
  }

  private encodePage(
    page: number,
    at: { source: Int32Array; from: number; target: Int32Array; to: number },
  ): 'equal' | 'delta' | 'whole' {
    const { source, from, target, to } = at;
    const base = this.find(page);
    if (base >= 0) {
      const gain = subtract(source, from, this.baseWords, base, target, to);
      if (gain === pageIsEqual) return 'equal';
      if (gain > 0) return 'delta';
    }
    target.set(source.subarray(from, from + pageWords), to);
    return 'whole';
  }

  /** Where the base has this page, in words; -1 when it has not. Pages are asked for in ascending order. */
  private find(page: number): number {
    const { bounds } = this.base.runs;
    while (this.run < bounds.length && (bounds[this.run + 1] ?? 0) <= page) {
      this.runAt += (bounds[this.run + 1] ?? 0) - (bounds[this.run] ?? 0);
      this.run += 2;
    }
    const start = bounds[this.run] ?? Number.POSITIVE_INFINITY;
    return page < start ? -1 : (this.runAt + page - start) / wordBytes;
  }
}

const pageIsEqual = Number.POSITIVE_INFINITY;

/** Writes the difference of two pages; returns how many more words of it are zero than of the page itself. */
function subtract(
  page: Int32Array,
  pageAt: number,
  base: Int32Array,
  baseAt: number,
  target: Int32Array,
  targetAt: number,
): number {
  let zeros = 0;
  let zerosBefore = 0;
  for (let index = 0; index < pageWords; index += 1) {
    const word = page[pageAt + index] as number;
    const difference = word ^ (base[baseAt + index] as number);
    target[targetAt + index] = difference;
    if (difference === 0) zeros += 1;
    if (word === 0) zerosBefore += 1;
  }
  return zeros === pageWords ? pageIsEqual : zeros - zerosBefore;
}

/** Makes pages of differences, where they lie: `contents` are those of `runs`, `base` is the whole shadow. */
export function addBase(batch: DeltaBatch, base: Uint8Array): void {
  if (batch.deltas.runs === 0) return;
  const target = words(batch.contents);
  const { bounds } = batch.deltas;
  let delta = 0;
  let at = 0;
  batch.runs.forEach((start, end) => {
    for (; delta < bounds.length && (bounds[delta + 1] ?? 0) <= end; delta += 2) {
      const from = bounds[delta] ?? 0;
      const source = words(base.subarray(from, bounds[delta + 1] ?? 0));
      add(target, (at + from - start) / wordBytes, source);
    }
    at += end - start;
  });
}

function add(target: Int32Array, targetAt: number, source: Int32Array): void {
  for (let index = 0; index < source.length; index += 1)
    target[targetAt + index] = (target[targetAt + index] as number) ^ (source[index] as number);
}

/** Whether every run of `part` lies within one run of `whole`. */
export function contains(whole: PageRuns, part: PageRuns): boolean {
  let run = 0;
  for (let at = 0; at < part.bounds.length; at += 2) {
    const end = part.bounds[at + 1] ?? 0;
    while (run < whole.bounds.length && (whole.bounds[run + 1] ?? 0) < end) run += 2;
    const start = whole.bounds[run] ?? Number.POSITIVE_INFINITY;
    if ((part.bounds[at] ?? 0) < start) return false;
  }
  return true;
}

function words(bytes: Uint8Array): Int32Array {
  assert(bytes.byteOffset % wordBytes === 0, 'pages lie at whole words');
  return new Int32Array(bytes.buffer, bytes.byteOffset, bytes.length / wordBytes);
}
