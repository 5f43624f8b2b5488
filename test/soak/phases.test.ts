// Every kind of fault at every point of a checkpoint, in colo mode, and once in remus mode. The tables are in
// docs/reliability.md. COLO_MODE in the environment chooses one mode, COLO_ROUNDS (default 1) how often all of it is
// done.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { pointsOf, strikeKinds, strikes } from '../failover/strikes.ts';

/** In remus mode the secondary stands still: there is nothing to stop, and what it is given it does not load. */
const ofRunningSecondary: readonly string[] = ['apply.stopped', 'apply.written', 'apply.loaded'];
const rounds = Number(process.env['COLO_ROUNDS'] ?? '1');
const only = process.env['COLO_MODE'];
assert.ok(only === undefined || only === 'colo' || only === 'remus', `there is no mode ${only}`);

for (const mode of ['colo', 'remus'] as const)
  for (const kind of strikeKinds)
    test(`${mode}, a node is ${kind} at every point of a checkpoint: the other one goes on`, {
      skip: only !== undefined && only !== mode,
    }, (context) => {
      const points = pointsOf('primary', 'secondary').filter(
        (point) => mode === 'colo' || !ofRunningSecondary.includes(point),
      );
      const faults = Array.from({ length: rounds }, () => points.map((point) => [kind, point] as const)).flat();
      return strikes(context, { vm: `phases-${mode}`, mode, faults });
    });
