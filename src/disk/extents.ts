// What a row of writes leaves on a disk: disjoint extents in ascending order, the newest write winning.
//
//    written   |aaaaaaaaaa|           then   |bbb|          gives   |aa|bbb|aaaaa|
//
// Pure. It exists so that applying an epoch writes every byte once, in order of place: a database writes the same few
// pages again and again, and neighbours become one large write.

export interface Content {
  /** Bytes of the write, when memory holds them; a view that begins at the extent's start. */
  data: Uint8Array | undefined;
  /** Where the same bytes are in the segment's file; undefined for zeroes. */
  fileAt: number | undefined;
}

export interface Extent extends Content {
  start: number;
  end: number;
}

export class ExtentMap {
  private readonly extents: Extent[] = [];

  get count(): number {
    return this.extents.length;
  }

  /** Adds a write over whatever was there. */
  add(extent: Extent): void {
    const first = this.firstEndingAfter(extent.start);
    let last = first;
    while ((this.extents[last]?.start ?? Number.POSITIVE_INFINITY) < extent.end) last += 1;
    const replacement: Extent[] = [];
    const before = this.extents[first];
    if (first < last && before !== undefined && before.start < extent.start)
      replacement.push(cut(before, before.start, extent.start));
    replacement.push(extent);
    const behind = this.extents[last - 1];
    if (first < last && behind !== undefined && behind.end > extent.end)
      replacement.push(cut(behind, extent.end, behind.end));
    this.extents.splice(first, last - first, ...replacement);
  }

  [Symbol.iterator](): Iterator<Extent> {
    return this.extents[Symbol.iterator]();
  }

  /** Index of the first extent that ends after `at`. */
  private firstEndingAfter(at: number): number {
    let low = 0;
    let high = this.extents.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.extents[middle]?.end ?? 0) > at) high = middle;
      else low = middle + 1;
    }
    return low;
  }
}

function cut(extent: Extent, start: number, end: number): Extent {
  const from = start - extent.start;
  return {
    start,
    end,
    data: extent.data?.subarray(from, from + end - start),
    fileAt: extent.fileAt === undefined ? undefined : extent.fileAt + from,
  };
}

export type Run = { kind: 'zeroes'; start: number; end: number } | { kind: 'data'; start: number; extents: Extent[] };

/** Neighbouring extents as runs: each is one write, or one hole. */
export function* runs(extents: Iterable<Extent>, limits: { bytes: number; extents: number }): Generator<Run> {
  let run: { kind: 'data'; start: number; extents: Extent[] } | undefined;
  let end = 0;
  for (const extent of extents) {
    if (extent.fileAt === undefined) {
      if (run !== undefined) yield run;
      run = undefined;
      yield { kind: 'zeroes', start: extent.start, end: extent.end };
      continue;
    }
    const joins = run !== undefined && end === extent.start && run.extents.length < limits.extents;
    if (run !== undefined && joins && extent.end - run.start <= limits.bytes) run.extents.push(extent);
    else {
      if (run !== undefined) yield run;
      run = { kind: 'data', start: extent.start, extents: [extent] };
    }
    end = extent.end;
  }
  if (run !== undefined) yield run;
}

/** From the first to the last of extents that touch. */
export function lengthOf(extents: readonly Extent[]): number {
  return (extents.at(-1)?.end ?? 0) - (extents[0]?.start ?? 0);
}
