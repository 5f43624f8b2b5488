// The secondary's half of a pair, as a pure state machine: events in, actions out.
//
//   idle        ─► joining (session)
//   joining     ─► protected (staged), leaving (link lost, SVM lost, disks, the guest ended)
//   protected   ─► protected (staged, applied), suspecting (link lost, silence, handover),
//                  leaving (SVM lost, apply failed, disks, the guest ended)
//   suspecting  ─► suspecting (applied), taking-over (term won), leaving (term lost, SVM lost, apply failed)
//   taking-over ─► primary (done), leaving (failed, SVM lost)
//   leaving     ─► idle (left)
//   primary     ─► nothing
//
// `dismissed` (the VM is placed elsewhere) is like the end of the guest: it leaves while its primary is there, and not
// later.
//
// `leaving` lasts until the SVM is gone and everything it used is free: a new session needs the same files and sockets.
//
// A staged checkpoint is acknowledged (`commit`) first and applied then: from the acknowledgement on, only it may be
// run. So a secondary claims the term when the apply is done, and lends its primary nothing more from the doubt on; and
// one that cannot apply what it committed has nothing it may run, says so by closing the links, and never claims the
// term: a primary that was only cut off goes on then. A checkpoint that is not complete when the primary is lost never
// happened.

import { unreachable } from '../base/assert.ts';

export type SecondaryState =
  | { kind: 'idle'; why: string }
  | { kind: 'joining' }
  /** `loaded`: a checkpoint of this pairing has been loaded here, so the machine's state is one that loads. */
  | { kind: 'protected'; epoch: number; applying: boolean; loaded: boolean }
  | { kind: 'suspecting'; epoch: number; applying: boolean; why: string }
  | { kind: 'taking-over'; epoch: number; why: string }
  | { kind: 'leaving'; why: string }
  | { kind: 'primary' };

export const secondarySuccessors = {
  idle: ['joining'],
  joining: ['protected', 'leaving'],
  protected: ['protected', 'suspecting', 'leaving'],
  suspecting: ['suspecting', 'taking-over', 'leaving'],
  'taking-over': ['primary', 'leaving'],
  leaving: ['idle'],
  primary: [],
} as const satisfies Record<SecondaryState['kind'], readonly SecondaryState['kind'][]>;

export type SecondaryEvent =
  | { kind: 'session' }
  /** A checkpoint is complete in the stage. */
  | { kind: 'staged'; epoch: number }
  | { kind: 'applied'; epoch: number }
  | { kind: 'applyFailed'; epoch: number; why: string }
  /** The replica of the disks cannot be written: no checkpoint can be completed here any more. */
  | { kind: 'disksFailed'; why: string }
  | { kind: 'linkLost'; why: string }
  /** No beat for so long that the primary's lease is over. */
  | { kind: 'silence' }
  | { kind: 'handover'; why: string }
  /** The guest ended by itself on the primary: the service is over, not its host. */
  | { kind: 'guestEnded'; why: string }
  | { kind: 'vmEnded'; why: string }
  /** The VM is to be protected elsewhere: only a node that is not about to be its last one does so (`isNeeded`). */
  | { kind: 'dismissed'; why: string }
  | { kind: 'aloneClaimed'; outcome: 'won' | 'lost' | 'error' }
  | { kind: 'tookOver' }
  | { kind: 'takeoverFailed'; why: string }
  /** The SVM is gone and all it used is free. */
  | { kind: 'left' };

export type SecondaryAction =
  | { kind: 'commit'; epoch: number }
  | { kind: 'apply'; epoch: number }
  /** The primary gets no right to speak from here any more. */
  | { kind: 'withhold' }
  | { kind: 'claimAlone' }
  | { kind: 'takeOver'; why: string }
  /** Closes the links and the VM, and says `left`: this node holds nothing that may run. */
  | { kind: 'leave'; why: string };

export class SecondaryPair {
  state: SecondaryState = { kind: 'idle', why: 'no primary yet' };

  /** True while the primary is in doubt or gone: this copy may be the last one. */
  get isNeeded(): boolean {
    const { kind } = this.state;
    return kind === 'suspecting' || kind === 'taking-over' || kind === 'primary';
  }

  on(event: SecondaryEvent): SecondaryAction[] {
    switch (event.kind) {
      case 'session':
        if (this.state.kind !== 'idle') return [];
        this.move({ kind: 'joining' });
        return [];
      case 'staged':
        return this.onStaged(event.epoch);
      case 'applied':
        return this.onApplied(event.epoch);
      case 'applyFailed':
      case 'vmEnded':
      case 'takeoverFailed':
        return this.leave(event.why);
      case 'linkLost':
        return this.onDoubt(event.why);
      case 'silence':
        return this.onDoubt('the primary is silent');
      case 'handover':
        return this.onDoubt(event.why);
      // The primary lives and is about to drop this node: it must not find a rival for the term that cannot serve. Once
      // the primary is in doubt this copy is better than none.
      case 'disksFailed':
      case 'guestEnded':
      case 'dismissed':
        return this.state.kind === 'protected' || this.state.kind === 'joining' ? this.leave(event.why) : [];
      case 'aloneClaimed':
        return this.onAloneClaimed(event.outcome);
      case 'tookOver':
        if (this.state.kind === 'taking-over') this.move({ kind: 'primary' });
        return [];
      case 'left':
        if (this.state.kind === 'leaving') this.move({ kind: 'idle', why: this.state.why });
        return [];
      default:
        return unreachable(event);
    }
  }

  private onStaged(epoch: number): SecondaryAction[] {
    const state = this.state;
    if (state.kind !== 'joining' && !(state.kind === 'protected' && !state.applying)) return [];
    const loaded = this.state.kind === 'protected' && this.state.loaded;
    this.move({ kind: 'protected', epoch, applying: true, loaded });
    return [
      { kind: 'commit', epoch },
      { kind: 'apply', epoch },
    ];
  }

  private onApplied(epoch: number): SecondaryAction[] {
    const state = this.state;
    if (state.kind === 'protected' && state.epoch === epoch) {
      this.move({ ...state, applying: false, loaded: true });
      return [];
    }
    if (state.kind !== 'suspecting' || state.epoch !== epoch) return [];
    this.move({ ...state, applying: false });
    return [{ kind: 'claimAlone' }];
  }

  private onDoubt(why: string): SecondaryAction[] {
    const state = this.state;
    if (state.kind === 'joining') return this.leave(why);
    if (state.kind !== 'protected') return [];
    this.move({ kind: 'suspecting', epoch: state.epoch, applying: state.applying, why });
    return [{ kind: 'withhold' }, ...(state.applying ? [] : [{ kind: 'claimAlone' as const }])];
  }

  private onAloneClaimed(outcome: 'won' | 'lost' | 'error'): SecondaryAction[] {
    const state = this.state;
    if (state.kind !== 'suspecting' || state.applying) return [];
    if (outcome === 'lost') return this.leave('the primary kept the term');
    if (outcome === 'error') return [{ kind: 'claimAlone' }];
    this.move({ kind: 'taking-over', epoch: state.epoch, why: state.why });
    return [{ kind: 'takeOver', why: state.why }];
  }

  private leave(why: string): SecondaryAction[] {
    const { kind } = this.state;
    if (kind === 'idle' || kind === 'leaving' || kind === 'primary') return [];
    this.move({ kind: 'leaving', why });
    return [{ kind: 'leave', why }];
  }

  private move(next: SecondaryState): void {
    const legal: readonly string[] = secondarySuccessors[this.state.kind];
    if (!legal.includes(next.kind)) throw new Error(`bug: secondary ${this.state.kind} cannot become ${next.kind}`);
    this.state = next;
  }
}
