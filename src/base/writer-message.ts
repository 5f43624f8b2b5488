// What writer.ts tells its thread, and hears from it.

export interface OpenOrder {
  kind: 'open';
  id: number;
  /** '': standard error. */
  path: string;
  /** Where the file goes when it is full, in the place of the one before. */
  old: string;
  bytesMax: number;
  gap: 'json' | 'text' | 'none';
  /** Of `slots`, 64 bits each; both sides count. */
  counters: SharedArrayBuffer;
}

export type WriterOrder = OpenOrder | { kind: 'write'; id: number; data: Uint8Array } | { kind: 'close'; id: number };

/** Why a file cannot be written now; '' when it can. */
export interface WriterWord {
  id: number;
  problem: string;
}

/** What a piece that waits costs besides its bytes: a guest writes to its console byte by byte. */
export const pieceCostBytes = 256;

export const slots = { doneBytes: 0, lost: 1, lostBytes: 2, count: 3 } as const;
