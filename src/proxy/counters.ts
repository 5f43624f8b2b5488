// What the proxy counts. Data frames are TCP frames with payload, UDP and ICMP.

import type { DivergenceKind } from './reason.ts';

export interface PrimaryCounters {
  /**
   * Frames of the PVM that left because the SVM sent the same, because of a commit, or because there is no secondary.
   */
  dataByMatch: number;
  dataByCommit: number;
  dataAlone: number;
  framesByMatch: number;
  framesByCommit: number;
  framesAlone: number;
  egressBytes: number;
  ingressFrames: number;
  ingressBytes: number;
  /** Frames of ours: segments cut from a longer one, and ACKs made. */
  split: number;
  synthesisedAcks: number;
  mirrored: number;
  secondaryFrames: number;
  dropped: Record<PrimaryDrop, number>;
  divergences: Record<DivergenceKind, number>;
  /** Frames of either guest that are not what their type says; compared as a whole. */
  malformed: number;
  connections: number;
  connectionsEvicted: number;
  heldFrames: number;
  heldBytes: number;
  aheadBytes: number;
  /** What has left and the client has not acknowledged. */
  sentBytes: number;
  gatedBytes: number;
  /** Times in headers that left as the PVM's though the SVM said another second (compare/http-date.ts). */
  datesTolerated: number;
}

/**
 * stale: SVM frames of another epoch. oldGeneration: held frames of a connection that has begun anew. overrun: the
 * guest
 *  went on although it was told to wait.
 */
export type PrimaryDrop = 'stale' | 'oldGeneration' | 'overrun' | 'gate';

export function newPrimaryCounters(): PrimaryCounters {
  return {
    dataByMatch: 0,
    dataByCommit: 0,
    dataAlone: 0,
    framesByMatch: 0,
    framesByCommit: 0,
    framesAlone: 0,
    egressBytes: 0,
    ingressFrames: 0,
    ingressBytes: 0,
    split: 0,
    synthesisedAcks: 0,
    mirrored: 0,
    secondaryFrames: 0,
    dropped: { stale: 0, oldGeneration: 0, overrun: 0, gate: 0 },
    divergences: { payload: 0, options: 0, fin: 0, rst: 0 },
    malformed: 0,
    connections: 0,
    connectionsEvicted: 0,
    heldFrames: 0,
    heldBytes: 0,
    aheadBytes: 0,
    sentBytes: 0,
    gatedBytes: 0,
    datesTolerated: 0,
  };
}

export interface SecondaryCounters {
  ingressFrames: number;
  /** SVM frames sent to the primary. */
  egressFrames: number;
  malformed: number;
  connections: number;
  unconfirmedFrames: number;
  unconfirmedBytes: number;
  logItems: number;
  logBytes: number;
  dropped: Record<SecondaryDrop, number>;
}

/**
 * standing: output of an SVM that should stand still. unpaired: a connection whose offset is not known (yet). bypass:
 * what
 *  the operator declared unprotected.
 */
export type SecondaryDrop = 'standing' | 'unpaired' | 'unconfirmed' | 'log' | 'bypass';

export function newSecondaryCounters(): SecondaryCounters {
  return {
    ingressFrames: 0,
    egressFrames: 0,
    malformed: 0,
    connections: 0,
    unconfirmedFrames: 0,
    unconfirmedBytes: 0,
    logItems: 0,
    logBytes: 0,
    dropped: { standing: 0, unpaired: 0, unconfirmed: 0, log: 0, bypass: 0 },
  };
}
