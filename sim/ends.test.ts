// Signals and the ends of hosts: none of them ends a VM of which another copy is there, in whatever order they come. Whole nodes,
// under the clock of the simulation.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { outside } from './world/outside.ts';
import { drawPlan, type Fault } from './world/plan.ts';
import { Random } from './world/random.ts';
import { report, runSeed } from './world/run.ts';

const seeds = Array.from({ length: 20 }, (_, index) => index + 1);
const atMs = 1500;
const signal = (on: Fault['on'], at: number): Fault => ({
  kind: 'signal',
  on,
  when: { atMs: at },
  forMs: 1,
  choice: 0,
});
const shutdown = (on: Fault['on'], at: number, forMs = 700): Fault => ({ ...signal(on, at), kind: 'shutdown', forMs });

/** Runs every seed's pair with these faults alone, in both modes; every guest has to be the one that was booted first. */
async function survives(faults: Fault[], healMs = 4500): Promise<void> {
  for (const seed of seeds) {
    const drawn = drawPlan(seed, new Random(seed).fork('plan'));
    const arbiter = { ...drawn.arbiter, lose: 0 };
    const mode = seed % 3 === 0 ? ('remus' as const) : ('colo' as const);
    const protect = { ...drawn.protect, mode };
    const outcome = await outside(() => runSeed(seed, { plan: { ...drawn, arbiter, protect, faults, healMs } }));
    assert.equal(outcome.violation, undefined, report(outcome));
    assert.equal(outcome.boots, 1, `seed ${seed}: the guest was booted anew`);
  }
}

test('a primary that is sent a signal hands over', () => survives([signal('primary', atMs)]));

test('a secondary that is sent a signal goes, and its primary goes on', () => survives([signal('secondary', atMs)]));

test('both nodes are sent a signal at once: one copy goes on', () =>
  survives([signal('primary', atMs), signal('secondary', atMs)]));

test('a primary that is sent a signal while it is alone keeps the only copy', () =>
  survives([signal('secondary', atMs), signal('primary', atMs + 60)]));

test('each host in turn is shut down and comes back: the VM moves and goes on', () =>
  survives([shutdown('primary', atMs), shutdown('primary', atMs + 4500)], 7000));

test('a host is shut down when its network is down already: the other one takes over', () => {
  const cut: Fault = { kind: 'cut', on: 'primary', when: { atMs: atMs - 30 }, forMs: 1500, choice: 0 };
  return survives([cut, shutdown('primary', atMs, 1400)]);
});

test('a host is shut down, and its QEMU is told first', () => {
  const qemu: Fault = { kind: 'kill-vm', on: 'primary', when: { atMs: atMs - 1 }, forMs: 1, choice: 0 };
  return survives([qemu, shutdown('primary', atMs)]);
});
