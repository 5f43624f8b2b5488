// The primary's right to speak, lent by the secondary in portions of `leaseMs`.
//
//    primary    ──beat(sentAt)──►                   lease valid until sentAt + leaseMs (primary's clock)
//    secondary                  ──echo(sentAt)──►   no takeover before echoSentAt + leaseMs + margin (its own clock)
//
// A beat is sent before it is echoed, so at equal clock rates the primary's lease always ends at least the margin
// before the secondary may take over on silence; where the clocks started does not matter, since each is only
// subtracted from itself. Above all, a primary that was stopped and wakes up finds its lease expired: echoes that
// waited in its socket meanwhile carry the old times at which their beats were sent, and extend nothing.
//
// What rests on this and what does not. That only one node goes on is decided by the arbiter, and what the primary may
// release needs the secondary's answer: no timing is involved. But frames that were already matched, or a commit that
// was already received, may lie in a stopped primary, ready to be released on waking. They would be right answers, but
// said by a second voice, and old. The lease makes that voice silent: the release gate asks `valid` for every batch.
// A primary stopped between that look and its write can still say that one batch; nothing in user space can prevent it,
// the frames are ones the survivor says too, and TCP discards the repetition.

export class Lease {
  private readonly leaseMs: number;
  private newestSentAt: number | undefined;

  constructor(options: { leaseMs: number }) {
    this.leaseMs = options.leaseMs;
  }

  /**
   * An echo arrived of the beat sent at `sentAt`. Older than one already seen changes nothing; one from the future was
   * never sent by us and is refused (false).
   */
  echoed(sentAt: number, now: number): boolean {
    if (!(sentAt <= now)) return false;
    if (this.newestSentAt === undefined || sentAt > this.newestSentAt) this.newestSentAt = sentAt;
    return true;
  }

  /** The link closed or the pairing ended: no right to speak is left. */
  revoke(): void {
    this.newestSentAt = undefined;
  }

  /** Whether the primary may release now. False before the first echo. */
  valid(now: number): boolean {
    return now < this.expiresAt;
  }

  /** When the lease ends; in the infinite past when there is none. */
  get expiresAt(): number {
    return this.newestSentAt === undefined ? Number.NEGATIVE_INFINITY : this.newestSentAt + this.leaseMs;
  }
}

/** The secondary's side: what it has lent, and when it may act on silence. */
export class Grant {
  private readonly termMs: number;
  private lastEchoAt: number | undefined;
  private linkClosed = false;

  constructor(options: { leaseMs: number; marginMs: number }) {
    this.termMs = options.leaseMs + options.marginMs;
  }

  /**
   * An echo leaves. `now` is to be read after the beat was received and may be older than the moment it really leaves:
   * the lease counts from when the beat was sent, which is older still.
   */
  echoSent(now: number): void {
    this.lastEchoAt = now;
  }

  /**
   * The primary ended the connection: its process is gone, or it has revoked its lease. Not to be called for one that
   * this side gave up: then the rule of silence holds.
   */
  closed(): void {
    this.linkClosed = true;
  }

  /** Whether the primary's right to speak is over. The arbiter must agree before anything is said. */
  takeoverAllowed(now: number): boolean {
    return this.linkClosed || now >= this.allowedAt;
  }

  /** How long the primary's right to speak may still last; 0 or less when it is over. */
  waitMs(now: number): number {
    return this.linkClosed ? 0 : this.allowedAt - now;
  }

  /** When the rule of silence allows a takeover; at any time when nothing was lent yet. */
  get allowedAt(): number {
    return this.lastEchoAt === undefined ? Number.NEGATIVE_INFINITY : this.lastEchoAt + this.termMs;
  }
}
