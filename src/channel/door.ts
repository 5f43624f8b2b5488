// Who may begin a TLS handshake now. Pure: time is an argument.
//
// A handshake costs the event loop about a millisecond, and the one of a node carries beats and frames. So a stranger
// may cost it so many in a second and no more, from wherever he knocks:
//
//    a source (an IPv4 address, an IPv6 /64)    burst, then perSecond
//    all sources that have proven nothing       burst, then perSecond, together
//    handshakes that have begun                 atOnce, half of it for one source
//
// A source that has proven who it is, as a peer has, does not share the strangers' part: it is paired with again while
// they knock. Its own part is bounded like any other's, and so are the tables: of strangers the one that was quiet
// longest leaves.

import { knownSourcesMax, sourcesMax } from './limits.ts';

export interface DoorLimits {
  burst: number;
  perSecond: number;
  strangersBurst: number;
  strangersPerSecond: number;
  atOnce: number;
}

/** `rate`: too many lately; `busy`: too many have begun. */
export type Verdict = 'admitted' | 'rate' | 'busy';

class Bucket {
  private readonly burst: number;
  private readonly perSecond: number;
  private level: number;
  private at: number;

  constructor(burst: number, perSecond: number, now: number) {
    this.burst = burst;
    this.perSecond = perSecond;
    this.level = burst;
    this.at = now;
  }

  has(now: number): boolean {
    this.level = Math.min(this.burst, this.level + (Math.max(0, now - this.at) * this.perSecond) / 1000);
    this.at = Math.max(this.at, now);
    return this.level >= 1;
  }

  take(): void {
    this.level -= 1;
  }
}

interface Source {
  bucket: Bucket;
  begun: number;
}

export class Door {
  readonly refused = { rate: 0, busy: 0 };
  private readonly limits: DoorLimits;
  private readonly strangers = new Map<string, Source>();
  private readonly known = new Map<string, Source>();
  private readonly shared: Bucket;
  private begun = 0;

  constructor(limits: DoorLimits, now: number) {
    this.limits = limits;
    this.shared = new Bucket(limits.strangersBurst, limits.strangersPerSecond, now);
  }

  /** Somebody knocks. One that is admitted has begun, until `done`. */
  knock(address: string, now: number): Verdict {
    const name = sourceOf(address);
    const isKnown = this.known.has(name);
    const source = this.source(name, now);
    const verdict = this.verdict(source, isKnown, now);
    if (verdict !== 'admitted') {
      this.refused[verdict] += 1;
      return verdict;
    }
    source.bucket.take();
    if (!isKnown) this.shared.take();
    source.begun += 1;
    this.begun += 1;
    return verdict;
  }

  /** Its handshake is over; `proven`: it has shown who it is. */
  done(address: string, proven: boolean, now: number): void {
    const name = sourceOf(address);
    const source = this.source(name, now);
    this.begun = Math.max(0, this.begun - 1);
    source.begun = Math.max(0, source.begun - 1);
    if (!proven) return;
    this.strangers.delete(name);
    keep(this.known, name, source, knownSourcesMax);
  }

  private verdict(source: Source, isKnown: boolean, now: number): Verdict {
    const { atOnce } = this.limits;
    // A place is kept for those who are known, however many strangers have begun and say nothing.
    if (source.begun >= atOnce / 2 || (!isKnown && this.begun >= atOnce)) return 'busy';
    if (!source.bucket.has(now) || (!isKnown && !this.shared.has(now))) return 'rate';
    return 'admitted';
  }

  private source(name: string, now: number): Source {
    const known = this.known.get(name);
    if (known !== undefined) return known;
    const { burst, perSecond } = this.limits;
    const source = this.strangers.get(name) ?? { bucket: new Bucket(burst, perSecond, now), begun: 0 };
    keep(this.strangers, name, source, sourcesMax);
    return source;
  }
}

/** As the newest of the table; beyond its bound the oldest leaves. */
function keep(table: Map<string, Source>, name: string, source: Source, max: number): void {
  table.delete(name);
  table.set(name, source);
  const oldest = table.size > max ? table.keys().next() : undefined;
  if (oldest?.done === false) table.delete(oldest.value);
}

/** Whoever has one address of an IPv6 /64 has all of it. */
function sourceOf(address: string): string {
  if (!address.includes(':')) return address;
  const mapped = /^::ffff:([\d.]+)$/i.exec(address)?.[1];
  if (mapped !== undefined) return mapped;
  const [head = '', tail = ''] = address.split('%')[0]?.split('::') ?? [];
  const left = head === '' ? [] : head.split(':');
  const right = tail === '' ? [] : tail.split(':');
  const zeroes = Array<string>(Math.max(0, 8 - left.length - right.length)).fill('0');
  return [...left, ...zeroes, ...right].slice(0, 4).join(':');
}
