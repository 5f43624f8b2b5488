// Why a primary has no secondary, in words for who looks at it: what ended the last one, and what came of the last try
// with each node that could be the next. Pure; it decides nothing.
//
//    took over, lost ──► the reason, kept until a first checkpoint is committed: an attempt that fails does not hide it
//    tried           ──► per node, what its refusal was; a node that was reached is being prepared
//    said            ──► the peer's own words of why it leaves, which are better than that its link was closed

import { plightCharactersMax } from '../limits.ts';

export class Plight {
  private reason = '';
  private peer = '';
  private words = '';
  private readonly refusals = new Map<string, string>();

  /** This node has just taken the VM over. */
  tookOver(why: string): void {
    this.reason = `it took over: ${cut(why)}`;
  }

  /** The node answers, and is to become the secondary. */
  reached(peer: string): void {
    this.peer = peer;
    this.words = '';
    this.refusals.delete(peer);
  }

  refused(peer: string, why: string): void {
    this.refusals.set(peer, cut(why));
  }

  /** What the peer says of itself, before it leaves. */
  said(why: string): void {
    this.words = cut(why);
  }

  lost(why: string): void {
    const own = this.words === '' ? cut(why) : `it says: ${this.words}`;
    this.reason = `${this.peer === '' ? 'the secondary' : this.peer} was lost: ${own}`;
  }

  protectedNow(): void {
    this.reason = '';
    this.refusals.clear();
  }

  /** `peers`: who may be asked. `waiting`: nobody is asked for a while. */
  text(pair: { kind: string; linked: boolean; waiting: boolean; peers: readonly string[] }): string {
    return [this.reason, this.doing(pair)].filter((part) => part !== '').join('; ');
  }

  private doing({ kind, linked, waiting, peers }: Parameters<Plight['text']>[0]): string {
    if (kind === 'syncing') return `the memory is being copied to ${this.peer}`;
    if (kind !== 'alone') return '';
    if (linked) return `${this.peer} starts its copy of the machine`;
    if (peers.length === 0) return 'no other node is known that could be the secondary';
    if (waiting) return '';
    return peers.map((peer) => `${peer}: ${this.refusals.get(peer) ?? 'is being asked'}`).join('; ');
  }
}

function cut(text: string): string {
  return text.length <= plightCharactersMax ? text : `${text.slice(0, plightCharactersMax)}...`;
}
