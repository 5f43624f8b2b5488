// Messages of the beat link. Both have one layout, big-endian; an echo returns the beat's bytes as they were.
//
//    0            4                   12                 20
//    ┌────────────┬───────────────────┬──────────────────┐
//    │ sequence   │ term (u64)        │ sentAt (float64) │   sentAt: milliseconds of the primary's own clock
//    └────────────┴───────────────────┴──────────────────┘
//
// The sequence wraps: it is for people who look at beats in a trace, and nothing rests on it.
// The term lets each side see at once that the other's idea of who owns the VM is older or newer than its own.

/** Message types on the beat link. */
export const beatTypes = { beat: 1, echo: 2 } as const;

export const beatBytes = 20;

export interface Beat {
  sequence: number;
  term: number;
  sentAt: number;
}

export function encodeBeat(beat: Beat): Uint8Array {
  const bytes = new Uint8Array(beatBytes);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, beat.sequence);
  view.setBigUint64(4, BigInt(beat.term));
  view.setFloat64(12, beat.sentAt);
  return bytes;
}

/** The beat, or undefined when the bytes are none: the peer's link is then to be closed. */
export function parseBeat(payload: Uint8Array): Beat | undefined {
  if (payload.length !== beatBytes) return undefined;
  const view = new DataView(payload.buffer, payload.byteOffset, payload.length);
  const sentAt = view.getFloat64(12);
  const term = Number(view.getBigUint64(4));
  if (!Number.isFinite(sentAt) || !Number.isSafeInteger(term)) return undefined;
  return { sequence: view.getUint32(0), term, sentAt };
}
