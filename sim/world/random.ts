// Randomness of one run: every part has a stream of its own, named and derived from the seed, so that one part drawing
// once more does not change what all the others draw.

import { seededRandom } from '../../src/base/random.ts';

export class Random {
  private readonly seed: number;
  private readonly draw: () => number;

  constructor(seed: number) {
    this.seed = seed >>> 0;
    this.draw = seededRandom(this.seed);
  }

  /** A stream of its own for the part called `name`. */
  fork(name: string): Random {
    let hash = (0x811c9dc5 ^ this.seed) >>> 0;
    for (let at = 0; at < name.length; at += 1) hash = Math.imul(hash ^ name.charCodeAt(at), 0x01000193) >>> 0;
    return new Random(hash ^ (hash >>> 13));
  }

  /** In [0, 1). */
  next(): number {
    return this.draw();
  }

  /** A whole number in [0, below). */
  below(below: number): number {
    return Math.floor(this.draw() * below);
  }

  /** A number in [from, to). */
  between(from: number, to: number): number {
    return from + this.draw() * (to - from);
  }

  chance(probability: number): boolean {
    return this.draw() < probability;
  }

  u32(): number {
    return Math.floor(this.draw() * 4294967296) >>> 0;
  }

  pick<T>(from: readonly [T, ...T[]]): T {
    return from[this.below(from.length)] ?? from[0];
  }
}
