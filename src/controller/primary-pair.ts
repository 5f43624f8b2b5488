// The primary's half of a pair, as a pure state machine: events in, actions out, time nowhere but in the caller.
//
//   alone      ─► syncing (peerReady), ended (the VM ends)
//   syncing    ─► syncing (another round), pairing (copied), alone (link lost), ended (the VM ends)
//   pairing    ─► protected (term won), suspecting (link lost, no answer), fenced (term lost), ended (the VM ends)
//   protected  ─► protected (checkpoints), suspecting (link lost, silence, handover, VM hangs), fenced (VM lost),
//                 ended (the VM ends)
//   suspecting ─► alone (term won), fenced (term lost, VM lost), ended (the VM ends)
//   fenced     ─► nothing
//   ended      ─► nothing
//
// A planned failover is a doubt too: the secondary is asked to take over, and has a moment to win the term. One that is
// asked for while a checkpoint is captured, or the secondary applies one, begins when that is done or has failed: the
// secondary claims no term before it has applied it.
//
// Who may speak (docs/ARCHITECTURE.md): in `protected` the proxy releases only what the secondary can honour. From the
// first doubt (`suspecting`) the gate is shut, and it opens again only with the term. `fenced` never speaks again;
// its node comes back as a secondary (role.ts).
//
// Within `protected` one checkpoint runs at a time:
//
//   running ──want──► capturing ──captured──► sending ──committed──► applying ──applied──► running
//                         │ failed               │ refused
//                         └──────► running ◄─────┘        (epoch unchanged: the capture never happened)
//
// A checkpoint that is wanted while one is captured or sent is that one, or is asked for again by the proxy. One that
// is wanted during the apply is about output of after that checkpoint: it begins when the apply is done. An operator's
// request is answered by a checkpoint that begins after it, whatever else that is for: `compare` says up to which.

import { unreachable } from '../base/assert.ts';
import { offerMs, refusalsMax } from './limits.ts';
import { anotherRound } from './policy.ts';

export type CheckpointPhase = 'running' | 'capturing' | 'sending' | 'applying';

export type PrimaryState =
  | { kind: 'alone' }
  | { kind: 'syncing'; round: number; lastDirtyPages: number }
  | { kind: 'pairing' }
  /**
   * `complete`: the secondary holds a checkpoint that it could run. `loaded`: it has loaded one: before that nobody
   * knows that this machine's state loads there. `handover`: why it is to take over when it has applied the one of now,
   * or that one has failed. `wanted`: why another checkpoint is to follow it. `asked`: the operator's newest request;
   * `covered`: the newest one that the checkpoint of now, or the last one, began after.
   */
  | {
      kind: 'protected';
      phase: CheckpointPhase;
      epoch: number;
      refusals: number;
      complete: boolean;
      loaded: boolean;
      asked: number;
      covered: number;
      handover?: string;
      wanted?: Reason;
    }
  /** `peerMayRun`: the secondary may hold a checkpoint that it could run. */
  | { kind: 'suspecting'; why: string; peerMayRun: boolean }
  | { kind: 'fenced'; why: string }
  | { kind: 'ended'; why: string };

type Protected = Extract<PrimaryState, { kind: 'protected' }>;

export const primarySuccessors = {
  alone: ['syncing', 'ended'],
  syncing: ['syncing', 'pairing', 'alone', 'ended'],
  pairing: ['protected', 'suspecting', 'fenced', 'ended'],
  protected: ['protected', 'suspecting', 'fenced', 'ended'],
  suspecting: ['alone', 'fenced', 'ended'],
  fenced: [],
  ended: [],
} as const satisfies Record<PrimaryState['kind'], readonly PrimaryState['kind'][]>;

/** Why a checkpoint is taken; the proxy's reasons and ours. */
export interface Reason {
  kind: string;
  connection?: string;
  offset?: number;
  detail?: string;
}

export type PrimaryEvent =
  /** The links stand and the secondary's VM waits, paused. */
  | { kind: 'peerReady' }
  | { kind: 'roundSent'; dirtyPages: number }
  | { kind: 'pairClaimed'; outcome: 'won' | 'lost' | 'error' }
  | { kind: 'aloneClaimed'; outcome: 'won' | 'lost' | 'error' }
  /** `request`: an operator's, numbered upwards. */
  | { kind: 'want'; reason: Reason; request?: number }
  | { kind: 'captured'; epoch: number }
  | { kind: 'captureFailed'; why: string }
  | { kind: 'committed'; epoch: number }
  | { kind: 'applied'; epoch: number }
  | { kind: 'refused'; epoch: number; why: string }
  | { kind: 'linkLost'; why: string }
  /** The lease ran out: no beat was echoed in time. */
  | { kind: 'silence' }
  | { kind: 'vmEnded'; why: string; byGuest: boolean }
  /** QEMU has not answered its monitor for a while. It may go on: then nothing is lost. */
  | { kind: 'vmHangs'; why: string }
  | { kind: 'handover'; why: string };

export type PrimaryAction =
  | { kind: 'startMirroring' }
  | { kind: 'sendRound'; round: number }
  | { kind: 'claimPair' }
  | { kind: 'claimAlone'; afterMs?: number }
  | { kind: 'capture'; reason: Reason }
  | { kind: 'release'; epoch: number }
  /** `answers`: requests up to this one have been done. */
  | { kind: 'compare'; epoch: number; answers: number }
  | { kind: 'abortCapture'; epoch: number; why: string }
  | { kind: 'shutGate' }
  | { kind: 'goAlone' }
  | { kind: 'dropPeer'; why: string }
  /** Kills the VM and never speaks again. */
  | { kind: 'fence'; why: string }
  /** Tells the secondary to take over now; the gate is shut before. */
  | { kind: 'tellHandover'; why: string }
  /** Tells the secondary that the guest ended by itself: nothing is to be taken over. */
  | { kind: 'tellEnd'; why: string; byGuest: boolean };

export class PrimaryPair {
  state: PrimaryState = { kind: 'alone' };

  on(event: PrimaryEvent): PrimaryAction[] {
    switch (event.kind) {
      case 'peerReady':
        return this.onPeerReady();
      case 'roundSent':
        return this.onRoundSent(event.dirtyPages);
      case 'pairClaimed':
        return this.onPairClaimed(event.outcome);
      case 'aloneClaimed':
        return this.onAloneClaimed(event.outcome);
      case 'want':
        return this.onWant(event.reason, event.request);
      case 'captured':
      case 'captureFailed':
      case 'committed':
      case 'applied':
      case 'refused':
        return this.onCheckpoint(event);
      case 'linkLost':
        return this.onDoubt(event.why);
      case 'silence':
        return this.state.kind === 'protected' ? this.onDoubt('the secondary is silent') : [];
      case 'vmEnded':
        return this.onVmEnded(event.why, event.byGuest);
      case 'vmHangs':
        return this.onVmHangs(event.why);
      case 'handover':
        return this.onHandover(event.why);
      default:
        return unreachable(event);
    }
  }

  private onPeerReady(): PrimaryAction[] {
    if (this.state.kind !== 'alone') return [];
    this.move({ kind: 'syncing', round: 0, lastDirtyPages: Number.POSITIVE_INFINITY });
    return [{ kind: 'startMirroring' }, { kind: 'sendRound', round: 0 }];
  }

  private onRoundSent(dirtyPages: number): PrimaryAction[] {
    if (this.state.kind !== 'syncing') return [];
    const { round, lastDirtyPages } = this.state;
    if (!anotherRound({ round, dirtyPages, lastDirtyPages })) {
      this.move({ kind: 'pairing' });
      return [{ kind: 'claimPair' }];
    }
    this.move({ kind: 'syncing', round: round + 1, lastDirtyPages: dirtyPages });
    return [{ kind: 'sendRound', round: round + 1 }];
  }

  /** The record must name the pair before the secondary can hold a complete checkpoint, else it could not take over. */
  private onPairClaimed(outcome: 'won' | 'lost' | 'error'): PrimaryAction[] {
    if (this.state.kind === 'suspecting') return [];
    if (this.state.kind !== 'pairing') return [];
    if (outcome === 'lost') return this.fence('another node owns the term');
    if (outcome === 'error') {
      this.move({ kind: 'suspecting', why: 'the arbiter did not answer', peerMayRun: false });
      return [{ kind: 'dropPeer', why: 'the arbiter did not answer' }, { kind: 'claimAlone' }];
    }
    const nothing = { epoch: 0, refusals: 0, complete: false, loaded: false, asked: 0, covered: 0 };
    this.move({ kind: 'protected', phase: 'capturing', ...nothing });
    return [{ kind: 'capture', reason: { kind: 'initial' } }];
  }

  private onAloneClaimed(outcome: 'won' | 'lost' | 'error'): PrimaryAction[] {
    if (this.state.kind !== 'suspecting') return [];
    if (outcome === 'lost') return this.fence('the secondary owns the term');
    if (outcome === 'error') return [{ kind: 'claimAlone' }];
    this.move({ kind: 'alone' });
    return [{ kind: 'goAlone' }];
  }

  private onWant(reason: Reason, request?: number): PrimaryAction[] {
    if (this.state.kind !== 'protected') return [];
    const state = { ...this.state, asked: request ?? this.state.asked };
    if (state.phase === 'running') return this.begin(state, reason);
    this.move(state.phase === 'applying' ? { ...state, wanted: state.wanted ?? reason } : state);
    return [];
  }

  private begin(state: Protected, reason: Reason): PrimaryAction[] {
    this.move({ ...state, phase: 'capturing', covered: state.asked });
    return [{ kind: 'capture', reason }];
  }

  /** What was asked for since the checkpoint that is over began; nothing when nothing was. */
  private beginNext(state: Protected, wanted: Reason | undefined): PrimaryAction[] {
    const reason = wanted ?? (state.asked > state.covered ? { kind: 'operator' } : undefined);
    return reason === undefined ? [] : this.begin(state, reason);
  }

  private onCheckpoint(
    event: Extract<PrimaryEvent, { kind: 'captured' | 'captureFailed' | 'committed' | 'applied' | 'refused' }>,
  ): PrimaryAction[] {
    const state = this.state;
    if (state.kind !== 'protected') return [];
    if (event.kind === 'captured' && state.phase === 'capturing') {
      this.move({ ...state, phase: 'sending', epoch: event.epoch });
      return [];
    }
    if (event.kind === 'committed' && state.phase === 'sending' && event.epoch === state.epoch) {
      this.move({ ...state, phase: 'applying', refusals: 0, complete: true });
      return [{ kind: 'release', epoch: event.epoch }];
    }
    if (event.kind === 'applied' && state.phase === 'applying' && event.epoch === state.epoch) {
      const { handover, wanted, ...rest } = state;
      const running = { ...rest, loaded: true, phase: 'running' as const };
      this.move(running);
      const compare = { kind: 'compare' as const, epoch: event.epoch, answers: state.covered };
      return [compare, ...(handover === undefined ? this.beginNext(running, wanted) : this.offer(handover))];
    }
    if (event.kind === 'captureFailed' && state.phase === 'capturing') return this.retry(state, event.why, []);
    if (event.kind === 'refused' && state.phase === 'sending' && event.epoch === state.epoch)
      return this.retry({ ...state, epoch: state.epoch - 1 }, event.why, [
        { kind: 'abortCapture', epoch: event.epoch, why: event.why },
      ]);
    return [];
  }

  /** A checkpoint that never happened: the epoch goes on; a secondary that cannot be given one is no protection. */
  private retry(state: Protected, why: string, first: PrimaryAction[]): PrimaryAction[] {
    const { handover, ...rest } = state;
    const running = { ...rest, phase: 'running' as const, refusals: state.refusals + 1 };
    this.move(running);
    if (running.refusals >= refusalsMax || !state.complete)
      return [...first, ...this.onDoubt(`no checkpoint could be made: ${why}`)];
    return [...first, ...(handover === undefined ? this.beginNext(running, undefined) : this.offer(handover))];
  }

  private onDoubt(why: string): PrimaryAction[] {
    switch (this.state.kind) {
      case 'syncing':
        this.move({ kind: 'alone' });
        return [{ kind: 'goAlone' }, { kind: 'dropPeer', why }];
      case 'pairing':
      case 'protected':
        this.move({ kind: 'suspecting', why, peerMayRun: this.peerMayRun });
        return [{ kind: 'shutGate' }, { kind: 'dropPeer', why }, { kind: 'claimAlone' }];
      default:
        return [];
    }
  }

  private onVmEnded(why: string, byGuest: boolean): PrimaryAction[] {
    const state = this.state;
    if (state.kind === 'fenced' || state.kind === 'ended') return [];
    if (this.peerMayRun && !byGuest) return state.kind === 'suspecting' ? this.fence(why) : this.handOver(why);
    this.move({ kind: 'ended', why });
    return [{ kind: 'tellEnd', why, byGuest }];
  }

  /**
   * The secondary is asked to take over, whatever the checkpoint of now has come to, if it holds a copy that it could
   * run. This copy is given up only when the secondary has the term: the whole host may have stood still for some
   * seconds, QEMU with it. Then the copy of the secondary may be gone, and this one is as good as before.
   */
  private onVmHangs(why: string): PrimaryAction[] {
    const { state } = this;
    return state.kind === 'protected' && state.complete ? this.offer(why) : [];
  }

  /** The secondary may hold a checkpoint that it could run. */
  get peerMayRun(): boolean {
    const { state } = this;
    if (state.kind === 'suspecting') return state.peerMayRun;
    // A checkpoint that is being sent may be complete over there before we hear of it.
    return state.kind === 'protected' && (state.complete || state.phase === 'sending');
  }

  private onHandover(why: string): PrimaryAction[] {
    const { state } = this;
    if (state.kind !== 'protected' || !state.complete) return [];
    if (state.phase === 'running' || state.phase === 'sending') return this.offer(why);
    this.move({ ...state, handover: why });
    return [];
  }

  /**
   * A planned failover: silent from now on, but the guest lives until the secondary has the term. When it does not take
   * it (it may have died unnoticed), this node goes on.
   */
  private offer(why: string): PrimaryAction[] {
    this.move({ kind: 'suspecting', why, peerMayRun: true });
    const later = { kind: 'claimAlone' as const, afterMs: offerMs };
    return [{ kind: 'shutGate' }, { kind: 'tellHandover', why }, { kind: 'dropPeer', why }, later];
  }

  private handOver(why: string): PrimaryAction[] {
    this.move({ kind: 'fenced', why });
    return [{ kind: 'shutGate' }, { kind: 'tellHandover', why }, { kind: 'fence', why }];
  }

  private fence(why: string): PrimaryAction[] {
    this.move({ kind: 'fenced', why });
    return [{ kind: 'shutGate' }, { kind: 'fence', why }];
  }

  private move(next: PrimaryState): void {
    const legal: readonly string[] = primarySuccessors[this.state.kind];
    if (!legal.includes(next.kind)) throw new Error(`bug: primary ${this.state.kind} cannot become ${next.kind}`);
    this.state = next;
  }
}
