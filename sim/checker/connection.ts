// Clients compare every byte, answer and reset with what they have seen (sim/network/client.ts), and say so when one is
// not right.

import type { Checker } from '../world/checker.ts';
import type { World } from '../world/world.ts';

export const sentence = 'What a client sees goes on exactly, whoever answers it.';

export function connection(world: World): Checker {
  const checker = { name: 'connection', sentence };
  return { ...checker, clientComplains: (what) => world.violate(checker.name, sentence, what) };
}
