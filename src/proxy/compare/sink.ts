// What the comparers ask of the proxy that owns them.

import type { FlowKey } from '../../packet/flow-key.ts';
import type { FrameView } from '../../packet/frame-view.ts';
import type { MatchedIds } from '../output/gate.ts';
import type { CheckpointReason, DivergenceKind } from '../reason.ts';

/**
 * `data` counts as a data frame (TCP with payload, UDP, ICMP); `part` is a frame of ours (a cut, an ACK): not counted.
 */
export type FrameClass = 'data' | 'other' | 'part';

/** What waited; undefined for what did not. */
export type HeldSince = { readonly time: number } | undefined;

export function classOf(view: FrameView): FrameClass {
  if (view.kind === 'tcp') return view.payloadBytes > 0 ? 'data' : 'other';
  return view.kind === 'udp' || view.kind === 'icmp' ? 'data' : 'other';
}

export interface Divergence {
  kind: DivergenceKind;
  connection: string;
  offset: number;
  primary: Uint8Array;
  secondary: Uint8Array;
  detail?: string;
}

/** A flow with frames or acknowledgements of the PVM that wait; the proxy looks only at these when time passes. */
export interface ActiveFlow {
  /** Its place in the proxy's list; -1 while nothing waits. */
  activeIndex: number;
}

export interface CompareSink {
  /**
   * The frame may leave. `held` is what waited, with the time of its arrival (not the time itself: a fractional number
   * that is handed on costs an allocation); undefined for what did not wait. `ids` are the SVM's frames that it was
   * matched with, where the secondary wants to know: it may forget them when the frame has been written.
   */
  leave(frame: Uint8Array, frameClass: FrameClass, held: HeldSince, ids?: MatchedIds): void;
  diverged(divergence: Divergence): void;
  want(reason: CheckpointReason): void;
  /**
   * The SVM has said another time at `sequence` than the PVM, whose `bytes` these are: the secondary is to take them
   * for its own.
   *  False when it cannot be asked.
   */
  tolerate(key: FlowKey, sequence: number, bytes: Uint8Array): boolean;
  /** This host's time, in milliseconds since 1970. */
  wallMs(): number;
  activate(flow: ActiveFlow): void;
  deactivate(flow: ActiveFlow): void;
  /** Frames and bytes held grew (or shrank) by this. */
  heldChanged(frames: number, bytes: number): void;
}

/** The time of what is being looked at, shared by the parts of a comparer: handed on, it would cost an allocation. */
export interface Moment {
  now: number;
}
