// Takeovers that stand still at the later points (the first is in test/failover/rough.test.ts), or end at any.

import { test } from 'node:test';
import { heldTakeover, killedTakeover } from '../failover/held.ts';
import { pointsOf } from '../failover/strikes.ts';

for (const point of pointsOf('takeover').filter((one) => one !== 'takeover.claimed'))
  test(`the survivor stands still at ${point} while the old primary wakes up: the old one is silent`, () =>
    heldTakeover(point));

for (const [what, how] of [
  ['node', 'dies'],
  ['QEMU', 'loses its QEMU'],
] as const)
  for (const point of pointsOf('takeover'))
    test(`the survivor ${how} at ${point}: the old primary gives up its copy, and the guest boots where the term is`, () =>
      killedTakeover(point, what));
