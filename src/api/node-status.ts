// What a node says of itself: the body of GET /status, and all that the command line knows of a VM.

import type { HistogramCounts } from '../base/histogram.ts';
import type { ReasonCode } from './reasons.ts';

export interface Percentiles {
  p50: number;
  p99: number;
  max: number;
}

export interface CheckpointLine {
  epoch: number;
  reason: string;
  /** Connection, stream offset and bytes of a divergence, where there was one. */
  why: string;
  pauseMs: number;
  commitMs: number;
  dirtyPages: number;
  sentBytes: number;
  heldFrames: number;
}

export interface DivergenceLine {
  epoch: number;
  kind: string;
  connection: string;
  offset: number;
  /** Up to 16 bytes around the difference, in hex. */
  primary: string;
  secondary: string;
}

/** Traffic that the operator declared unprotected. */
export interface BypassLine {
  rule: string;
  frames: number;
  bytes: number;
}

/** A process of a node: what it could not write, and what held it up. */
export interface ProcessStatus {
  /** Logs, consoles and recordings of which something is lost, or that cannot be written now. */
  losses: { path: string; pieces: number; bytes: number; problem: string }[];
  /** The event loop, which carries beats, frames and calls: its stalls of 100 ms and more since the start. */
  loop: { stalls: number; longest: StallLine | null; newest: StallLine[] };
}

/** A stall of the event loop: how long, what ran meanwhile, and when, in milliseconds since 1970. */
export interface StallLine {
  ms: number;
  cause: string;
  at: number;
}

export interface NodeStatus {
  vm: string;
  node: string;
  pid: number;
  /** Process of the VM on this node; null while there is none. */
  qemuPid: number | null;
  role: 'primary' | 'secondary' | 'fenced' | 'stopped';
  /**
   * State of this node's half of the pair (controller/), and why it came to be, where there is a reason. Of a primary
   * that is not protected: what ended its last secondary, and what each node that is asked answers.
   */
  state: string;
  why: string;
  /** The same in one of few words (reasons.ts); '' where there is nothing to say. */
  reason?: ReasonCode | undefined;
  /** In how long a primary without a secondary looks for one; null while it does so all the time, or has one. */
  nextTryInMs?: number | null | undefined;
  /** True only when the loss of this VM's primary would lose nothing. */
  protected: boolean;
  mode: 'colo' | 'remus' | 'none';
  term: number;
  epoch: number;
  host: { qemu: string; accel: string; tracker: string; cores: number; ramBytes: number; vcpus: number };
  checkpoints: {
    count: number;
    pauseMs: Percentiles;
    commitMs: Percentiles;
    dirtyPages: Percentiles;
    sentBytes: number;
    dirtyBytes: number;
    reasons: Record<string, number>;
    /** Since this role began, in seconds: for metrics (base/histogram.ts). */
    pauseSeconds?: HistogramCounts | undefined;
    commitSeconds?: HistogramCounts | undefined;
    dirtyBytesTotal?: number | undefined;
    sentBytesTotal?: number | undefined;
    last: CheckpointLine[];
  } | null;
  /** `dates`: times in headers that left as the primary's though the secondary said another second. */
  released: { byMatch: number; byCommit: number; dates: number; holdMs: { p50: number; p99: number } } | null;
  divergences: DivergenceLine[];
  /** Rules of `network.bypass`, with what left uncompared by each. */
  bypass: BypassLine[];
  traffic: { ingressFrames: number; ingressBytes: number; egressFrames: number; egressBytes: number };
  proxy: Record<string, unknown>;
  /** The last change of who runs the VM: moments in milliseconds since 1970. */
  failover: { why: string; detectedAt: number; doneAt: number } | null;
  /** With `protect.verify`: checkpoints that this node applied and compared with the capture. */
  verified?: { equal: number; different: number } | null | undefined;
  /** Why the arbiter does not answer, and for how long; null while it does. Without it nobody can take over. */
  arbiter?: { why: string; forMs: number } | null;
  /**
   * The VM has ended on this node and is not to be run by another: why, and whether its guest wanted it; null while it
   * has not.
   */
  over?: { why: string; byGuest: boolean } | null | undefined;
  /**
   * What is wrong on this node and costs itself alone, as a recording that cannot be written or an uplink that is gone.
   */
  problems?: string[] | undefined;
  /** The connections to the peer, where there is one, so that they can be told apart on the network. */
  links?: { kind: string; local: string; remote: string }[];
  /** How much silence of the peer raises a suspicion now; it grows with the gaps of the last minute. */
  heartbeat?: {
    suspectAfterMs: number;
    largestGapMs: number;
    /** Suspicions for silence of a peer that was there all the time, since this node started. */
    wrongSuspicions: number;
  };
  /** Of the process that answers. */
  process?: ProcessStatus | undefined;
  /** The VM's disks; null for a VM without. */
  disks?:
    | {
        /** What is being copied: the disks to a new secondary, or overlays into the disks after a takeover. */
        copying: { what: 'copy' | 'fold'; doneBytes: number; totalBytes: number } | null;
        /** primary: written and not yet held by the secondary; the guest's writes wait when it is at its limit. */
        backlogBytes: number;
        writtenBytes: number;
        /** primary: of the disks, not copied to this secondary, because it had them from before. */
        skippedBytes: number;
        /** secondary: waits for its checkpoint. */
        journalBytes: number;
        /** What last ended the protection of the disks, or what the guest's own disk has run into; '' if nothing. */
        problem: string;
      }
    | null
    | undefined;
}

/** An error's body. */
export interface ApiError {
  error: { code: string; message: string; hint?: string };
}
