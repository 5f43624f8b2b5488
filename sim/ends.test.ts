// Signals and the ends of hosts: none of them ends a VM of which another copy is there, in whatever order they come.
// Whole nodes, under the clock of the simulation.

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

/**
 * Runs every seed's pair with these faults alone, in both modes; every guest has to be the one that was booted first.
 */
async function survives(faults: Fault[], healMs = 4500): Promise<{ took: number }> {
  let took = 0;
  for (const seed of seeds) {
    const drawn = drawPlan(seed, new Random(seed).fork('plan'));
    const arbiter = { ...drawn.arbiter, lose: 0 };
    const mode = seed % 3 === 0 ? ('remus' as const) : ('colo' as const);
    const protect = { ...drawn.protect, mode };
    const lines: string[] = [];
    const write = (line: string) => void lines.push(line);
    const plan = { ...drawn, arbiter, protect, faults, healMs };
    const outcome = await outside(() => runSeed(seed, { plan, write }));
    if (lines.some((line) => line.includes('took over'))) took += 1;
    assert.equal(outcome.violation, undefined, report(outcome));
    assert.equal(outcome.boots, 1, `seed ${seed}: the guest was booted anew`);
  }
  return { took };
}

test('a primary that is sent a signal hands over', async () => {
  const { took } = await survives([signal('primary', atMs)]);
  assert.equal(took, seeds.length);
});

test('a secondary that is sent a signal goes, and its primary goes on', async () => {
  const { took } = await survives([signal('secondary', atMs)]);
  assert.equal(took, 0);
});

test('a secondary that is sent a signal keeps its copy until its primary is heard to go on alone: that may just be dying', async () => {
  for (const afterMs of [0.01]) {
    const death: Fault = { kind: 'kill-host', on: 'primary', when: { atMs: atMs + afterMs }, forMs: 60_000, choice: 0 };
    const { took } = await survives([signal('secondary', atMs), death], 9000);
    // A primary that was quick enough has gone on alone, and its death is that of the only copy.
    assert.ok(took > 0, `${took} took over`);
  }
});

test('both nodes are sent a signal at once: one copy goes on', async () =>
  void (await survives([signal('primary', atMs), signal('secondary', atMs)])));

test('both nodes are to end and leave the term to each other, and the copy of the secondary is lost meanwhile: it asks for no term', async () => {
  const death: Fault = { ...signal('secondary', atMs + 200), kind: 'kill-vm' };
  await survives([signal('secondary', atMs), signal('primary', atMs + 0.01), death], 9000);
});

test('a primary that is sent a signal while it is alone keeps the only copy', async () =>
  void (await survives([signal('secondary', atMs), signal('primary', atMs + 60)])));

test('each host in turn is shut down and comes back: the VM moves and goes on', async () =>
  void (await survives([shutdown('primary', atMs), shutdown('primary', atMs + 4500)], 7000)));

test('a host is shut down when its network is down already: the other one takes over', async () => {
  const cut: Fault = { kind: 'cut', on: 'primary', when: { atMs: atMs - 30 }, forMs: 1500, choice: 0 };
  await survives([cut, shutdown('primary', atMs, 1400)]);
});

test('a primary whose way to the network is gone hands over when that of its secondary is well, and stays when both are gone', async () => {
  const unplug = (on: Fault['on'], at: number): Fault => ({
    ...{ kind: 'unplug', on, when: { atMs: at }, forMs: 60_000, choice: 0 },
  });
  const { took: alone } = await survives([unplug('primary', atMs)], 6000);
  assert.equal(alone, seeds.length);
  const { took: both } = await survives([unplug('secondary', atMs - 60), unplug('primary', atMs)], 6000);
  assert.equal(both, 0);
});

test('a host is shut down, and its QEMU is told first', async () => {
  const qemu: Fault = { kind: 'kill-vm', on: 'primary', when: { atMs: atMs - 1 }, forMs: 1, choice: 0 };
  await survives([qemu, shutdown('primary', atMs)]);
});
