// Response similarity: what the proxy does so that two equal guests look equal to it, and to the client. Each measure
// is a switch (`protect.similarity` in the spec), so that `colo bench similarity` can say what each is worth.

/** Which TCP timestamps leave. */
export type TimestampMeasure = 'clamped' | 'coarse' | 'passed';
/** Who gives acknowledgements. */
export type AckMeasure = 'merged' | 'held';
/** How exactly windows are told. */
export type WindowMeasure = 'exact' | 'coarse';

/** Whether the time in an HTTP answer may differ by a second. */
export type DateMeasure = 'tolerant' | 'exact';

export interface Similarity {
  /**
   * clamped: never beyond the SVM's latest, never back. coarse: the same in steps of 16. passed: as the PVM wrote them.
   */
  timestamps: TimestampMeasure;
  /** merged: when the SVM catches up, an ACK of ours says so at once. held: that waits for the PVM's next segment. */
  acks: AckMeasure;
  /** exact: the lower of the two right edges. coarse: that, rounded down, so that small differences vanish. */
  window: WindowMeasure;
  /**
   * tolerant: an answer that differs in the second of its Date header alone leaves as the PVM's (compare/http-date.ts).
   * exact: a
   *  checkpoint.
   */
  dates: DateMeasure;
}

export const defaultSimilarity: Similarity = {
  timestamps: 'clamped',
  acks: 'merged',
  window: 'exact',
  dates: 'tolerant',
};

/** Most guests count milliseconds. */
export const coarseTimestampMask = ~15;
/** A power of two. */
export const coarseWindowBytes = 8192;
