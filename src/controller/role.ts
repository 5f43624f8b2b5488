// Which role a node has for a VM, and how it gets from one to the next, as a pure state machine: events in, actions
// out.
//
//   deciding  ─► claiming (the first or its own term, a pair whose peer holds nothing),
//                secondary (another node runs it, or may), ended (stop)
//   claiming  ─► primary (won), secondary (lost), ended (refused, stop)
//   primary   ─► clearing (fenced), ended (the guest ended, stop)
//   secondary ─► primary (took over), clearing (orphaned), ended (stop, failed)
//   clearing  ─► deciding (cleared), ended (stop, failed)
//   ended     ─► nothing
//
// What a node is told (`wanted`) matters for its start only: `primary` insists, `secondary` waits to be asked, `auto`
// does what the arbiter's record says. From then on roles change by themselves: a secondary that has the term is the
// primary, and a primary that lost its VM or its term frees everything and does what the record says: in most cases
// another node has the term by then, and this one offers itself as a secondary.
//
// `auto` and the record: nobody's or this node's alone means that the VM runs nowhere (its state was in the memory of
// this node, which has just started), so it is booted. A pair with this node as its owner means that the peer may be
// about to take over, with every connection: this node asks again until the record changes, or until the peer says that
// it holds no copy. Then the state is lost with both processes, and the owner, whom the record names, boots the VM
// anew.

import { unreachable } from '../base/assert.ts';

export type RoleState =
  | { kind: 'deciding' }
  | { kind: 'claiming' }
  | { kind: 'primary' }
  | { kind: 'secondary' }
  | { kind: 'clearing'; why: string }
  | { kind: 'ended'; why: string };

export const roleSuccessors = {
  deciding: ['claiming', 'secondary', 'ended'],
  claiming: ['primary', 'secondary', 'ended'],
  primary: ['clearing', 'ended'],
  secondary: ['primary', 'clearing', 'ended'],
  clearing: ['deciding', 'ended'],
  ended: [],
} as const satisfies Record<RoleState['kind'], readonly RoleState['kind'][]>;

export type WantedRole = 'primary' | 'secondary' | 'auto';

/** What the arbiter's record says of this node: `mine` alone, `pair` owned by it, or that of another owner. */
export type Standing = 'none' | 'mine' | 'pair' | 'other';

export type RoleEvent =
  | { kind: 'start' }
  | { kind: 'seen'; standing: Standing | 'error' }
  /**
   * The answer about the peer of a pair whose owner this node is: whether it is free, and so holds no copy that it
   * could run.
   */
  | { kind: 'peerAsked'; free: boolean }
  | { kind: 'claimed'; outcome: 'won' | 'lost' | 'error' }
  /** The secondary of this node has the term and a running VM. */
  | { kind: 'tookOver' }
  /** The primary of this node may never speak again. */
  | { kind: 'fenced'; why: string }
  /** The secondary of this node has won the term, and lost its copy before it could go on with it. */
  | { kind: 'orphaned'; why: string }
  /** The VM is over: nobody is to run it. */
  | { kind: 'vmOver'; why: string }
  | { kind: 'cleared' }
  | { kind: 'failed'; why: string }
  | { kind: 'stop'; why: string };

export type RoleAction =
  | { kind: 'look' }
  | { kind: 'askPeer' }
  /** After a pause: `start` again. */
  | { kind: 'lookLater' }
  | { kind: 'claimFirst' }
  /** Boots the VM. */
  | { kind: 'startPrimary' }
  | { kind: 'startSecondary' }
  /** The VM that this node took over is its own now. */
  | { kind: 'carryOn' }
  /** Kills the VM and frees all that the role had. */
  | { kind: 'clear' }
  /** The node cannot have the role it was told to have. */
  | { kind: 'refuse' };

export class Role {
  state: RoleState = { kind: 'deciding' };
  private wanted: WantedRole;

  constructor(wanted: WantedRole) {
    this.wanted = wanted;
  }

  on(event: RoleEvent): RoleAction[] {
    switch (event.kind) {
      case 'start':
        return this.onStart();
      case 'seen':
        return this.onSeen(event.standing);
      case 'peerAsked':
        return this.onPeerAsked(event.free);
      case 'claimed':
        return this.onClaimed(event.outcome);
      case 'tookOver':
        if (this.state.kind !== 'secondary') return [];
        this.move({ kind: 'primary' });
        return [{ kind: 'carryOn' }];
      case 'fenced':
        return this.state.kind === 'primary' ? this.clear(event.why) : [];
      case 'orphaned':
        return this.state.kind === 'secondary' ? this.clear(event.why) : [];
      case 'cleared':
        return this.onCleared();
      case 'vmOver':
      case 'failed':
      case 'stop':
        return this.end(event.why);
      default:
        return unreachable(event);
    }
  }

  private onStart(): RoleAction[] {
    if (this.state.kind !== 'deciding') return [];
    if (this.wanted === 'secondary') return this.beSecondary();
    if (this.wanted === 'auto') return [{ kind: 'look' }];
    this.move({ kind: 'claiming' });
    return [{ kind: 'claimFirst' }];
  }

  private clear(why: string): RoleAction[] {
    this.move({ kind: 'clearing', why });
    return [{ kind: 'clear' }];
  }

  /** Whoever asked this node to be something has had it: from here on the record says who runs the VM. */
  private onCleared(): RoleAction[] {
    if (this.state.kind !== 'clearing') return [];
    this.wanted = 'auto';
    this.move({ kind: 'deciding' });
    return [{ kind: 'look' }];
  }

  private onSeen(standing: Standing | 'error'): RoleAction[] {
    if (this.state.kind !== 'deciding') return [];
    switch (standing) {
      case 'error':
        return [{ kind: 'look' }];
      case 'none':
      case 'mine':
        this.move({ kind: 'claiming' });
        return [{ kind: 'claimFirst' }];
      case 'pair':
        return [{ kind: 'askPeer' }];
      case 'other':
        return this.beSecondary();
      default:
        return unreachable(standing);
    }
  }

  private onPeerAsked(free: boolean): RoleAction[] {
    if (this.state.kind !== 'deciding') return [];
    if (!free) return [{ kind: 'lookLater' }];
    this.move({ kind: 'claiming' });
    return [{ kind: 'claimFirst' }];
  }

  private onClaimed(outcome: 'won' | 'lost' | 'error'): RoleAction[] {
    if (this.state.kind !== 'claiming') return [];
    if (outcome === 'won') {
      this.move({ kind: 'primary' });
      return [{ kind: 'startPrimary' }];
    }
    if (this.wanted === 'auto') return outcome === 'lost' ? this.beSecondary() : [{ kind: 'claimFirst' }];
    this.move({ kind: 'ended', why: outcome === 'lost' ? 'another node owns the term' : 'the arbiter did not answer' });
    return [{ kind: 'refuse' }];
  }

  private beSecondary(): RoleAction[] {
    this.move({ kind: 'secondary' });
    return [{ kind: 'startSecondary' }];
  }

  private end(why: string): RoleAction[] {
    if (this.state.kind === 'ended') return [];
    this.move({ kind: 'ended', why });
    return [{ kind: 'clear' }];
  }

  private move(next: RoleState): void {
    const legal: readonly string[] = roleSuccessors[this.state.kind];
    if (!legal.includes(next.kind)) throw new Error(`bug: role ${this.state.kind} cannot become ${next.kind}`);
    this.state = next;
  }
}
