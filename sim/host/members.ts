// The three members of the arbiter, as far as a node can notice them: one leads, and two are a majority.
//
//   a follower is lost   ─► nobody notices
//   the leader is lost   ─► no answer to anybody until the other two have elected one
//   two are lost         ─► no answer until one of them is back, and an election
//
// What was asked when the leader was lost is not answered. It was done before; or never; or it is done by the next
// leader, when whoever asked has long given up: a claim of unknown outcome.

import type { Random } from '../world/random.ts';
import type { Schedule } from '../world/schedule.ts';

const memberCount = 3;
const majority = 2;
/** etcd's own is 1 to 2 s by default. */
const electionMs = { from: 100, to: 1500 };
/** How long after an election a claim from before it may still be done. */
const lateMs = 300;

export class Members {
  /** Grows when answers stop: who asked before hears nothing. */
  outages = 0;
  private readonly up: boolean[] = Array.from({ length: memberCount }, () => true);
  private leader: number | undefined = 0;
  private readonly inherited: (() => void)[] = [];
  private readonly schedule: Schedule;
  private readonly random: Random;

  constructor(schedule: Schedule, random: Random) {
    this.schedule = schedule;
    this.random = random;
  }

  get answers(): boolean {
    return this.leader !== undefined;
  }

  /** A request that was under way when the leader was lost: the next one may have it in its log. */
  inherit(operation: () => void): void {
    if (this.random.chance(0.5)) this.inherited.push(operation);
    if (this.answers) this.finishInherited();
  }

  /** Ends members: the leader of now and that many followers, or followers alone. Returns what brings them back. */
  lose({ leader, followers }: { leader: boolean; followers: number }): () => void {
    const isUp = (member: number) => this.up[member] === true;
    const members = [...this.up.keys()].filter(isUp);
    const led = members.filter((member) => member === this.leader);
    const others = members.filter((member) => member !== this.leader);
    const lost = [...(leader ? led : []), ...others.slice(0, followers)];
    for (const member of lost) this.up[member] = false;
    const isLed = this.leader !== undefined && isUp(this.leader) && this.hasMajority;
    if (!isLed && this.leader !== undefined) {
      this.leader = undefined;
      this.outages += 1;
      this.elect();
    }
    return () => {
      for (const member of lost) this.up[member] = true;
      this.elect();
    };
  }

  private get hasMajority(): boolean {
    return this.up.filter(Boolean).length >= majority;
  }

  private elect(): void {
    if (this.answers || !this.hasMajority) return;
    this.schedule.after(this.random.between(electionMs.from, electionMs.to), () => {
      if (this.answers || !this.hasMajority) return;
      this.leader = this.up.indexOf(true);
      this.finishInherited();
    });
  }

  private finishInherited(): void {
    for (const operation of this.inherited.splice(0)) this.schedule.after(this.random.between(0, lateMs), operation);
  }
}
