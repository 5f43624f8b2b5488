// Named points of a checkpoint and of a takeover, at which a test can let a node die or stand still.

/** Named points at which a test can let a node die or stand still. Inert without `armedBy`. */
export const faultPoints = [
  'round.sent',
  'pair.claimed',
  'capture.stopped',
  'capture.done',
  'send.begun',
  'send.half',
  'send.done',
  'commit.received',
  'release.done',
  'compare.begun',
  'stage.complete',
  'commit.sent',
  'apply.stopped',
  'apply.written',
  'apply.loaded',
  'apply.done',
  'takeover.claimed',
  'takeover.runnable',
  'takeover.announced',
] as const;
export type FaultPoint = (typeof faultPoints)[number];

/** At this point of this epoch or a later one the node kills itself, or `hold`: stops itself. Once. */
export interface Strike {
  point: FaultPoint;
  epoch: number;
  hold: boolean;
}
