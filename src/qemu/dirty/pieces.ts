// A scanner of memory that lies in several places of QEMU's address space: the guest's RAM and further blocks. Each
// place has a scanner of its own; here their answers become one, with the offsets of the RAM file.
//
// What looks first and re-arms then (`mustStand`) re-arms the whole process at once, so there the last one alone
// re-arms, when all have looked.

import { PageRuns } from '../../base/page-runs.ts';
import type { PageScanner } from './tracker.ts';

/** A scanner, and where its memory is in the RAM file. Ascending. */
export interface Piece {
  offset: number;
  bytes: number;
  scanner: PageScanner;
}

/** Throws when one of them cannot scan; all are closed then. */
export function scannerOf(pieces: readonly Piece[]): PageScanner {
  const [only] = pieces;
  if (only === undefined) throw new Error('bug: no memory to scan');
  return pieces.length === 1 && only.offset === 0 ? only.scanner : new PiecesScanner(pieces);
}

class PiecesScanner implements PageScanner {
  readonly rearm?: (listed: PageRuns) => PageRuns;
  readonly #pieces: readonly Piece[];

  constructor(pieces: readonly Piece[]) {
    this.#pieces = pieces;
    if (pieces.every(({ scanner }) => scanner.rearm !== undefined)) this.rearm = (listed) => this.#rearm(listed);
  }

  get kind(): PageScanner['kind'] {
    return this.#pieces[0]?.scanner.kind ?? 'userfaultfd';
  }

  get mustStand(): true | undefined {
    return this.#pieces[0]?.scanner.mustStand;
  }

  scan({ rearm }: { rearm: boolean }): PageRuns {
    const runs = new PageRuns();
    const last = this.#pieces.length - 1;
    for (const [index, { offset, scanner }] of this.#pieces.entries()) {
      const isItsTurn = scanner.mustStand !== true || index === last;
      scanner.scan({ rearm: rearm && isItsTurn }).forEach((start, end) => runs.add(offset + start, offset + end));
    }
    return runs;
  }

  #rearm(listed: PageRuns): PageRuns {
    const runs = new PageRuns();
    for (const piece of this.#pieces)
      piece.scanner
        .rearm?.(within(listed, piece))
        .forEach((start, end) => runs.add(piece.offset + start, piece.offset + end));
    return runs;
  }

  close(): void {
    for (const { scanner } of this.#pieces) scanner.close();
  }
}

/** The part of a list that is of this memory, by its own offsets. */
function within(listed: PageRuns, { offset, bytes }: Piece): PageRuns {
  const runs = new PageRuns();
  listed.forEach((start, end) => {
    const from = Math.max(start, offset);
    const to = Math.min(end, offset + bytes);
    if (from < to) runs.add(from - offset, to - offset);
  });
  return runs;
}
