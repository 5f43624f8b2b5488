// Two deaths, one soon after the other: in which order a copy of the guest is left, and that it goes on then. Whole
// nodes, under the clock of the simulation; in the lists of docs/PROTOCOL.md "Orders of death".

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { outside } from './world/outside.ts';
import { drawPlan, type Fault } from './world/plan.ts';
import { Random } from './world/random.ts';
import { type Outcome, report, runSeed } from './world/run.ts';

const seeds = Array.from({ length: 20 }, (_, index) => index + 1);
const atMs = 1500;

/** Runs every seed's pair with these faults alone, and an arbiter that answers. */
async function run(faults: Fault[], healMs = 3500): Promise<Outcome[]> {
  const outcomes: Outcome[] = [];
  for (const seed of seeds) {
    const drawn = drawPlan(seed, new Random(seed).fork('plan'));
    const arbiter = { ...drawn.arbiter, lose: 0 };
    const protect = { ...drawn.protect, mode: 'colo' as const };
    const outcome = await outside(() => runSeed(seed, { plan: { ...drawn, arbiter, protect, faults, healMs } }));
    assert.equal(outcome.violation, undefined, report(outcome));
    outcomes.push(outcome);
  }
  return outcomes;
}

const survived = (outcomes: Outcome[]) => outcomes.filter(({ boots }) => boots === 1).length;

/** The secondary still hears nothing wrong: the primary gives up its links, and both ask for the term. */
const doubt: Fault = { kind: 'reset-link', on: 'primary', when: { atMs }, forMs: 1, choice: 0 };

test("the primary's QEMU dies when it has just begun to ask for the term: the secondary goes on", async () => {
  const death: Fault = { kind: 'kill-vm', on: 'primary', when: { atMs: atMs + 0.01 }, forMs: 1, choice: 0 };
  assert.equal(survived(await run([doubt, death])), seeds.length);
});

test("the primary's QEMU is dead and its end not heard yet when each node doubts the other: the secondary goes on", async () => {
  const death: Fault = { kind: 'kill-vm-unheard', on: 'primary', when: { atMs: atMs - 1 }, forMs: 1500, choice: 0 };
  assert.equal(survived(await run([death, doubt])), seeds.length);
});

test("the primary's QEMU hangs when each node doubts the other: the secondary goes on", async () => {
  const hang: Fault = { kind: 'hang-vm', on: 'primary', when: { atMs: atMs - 1 }, forMs: 60_000, choice: 0 };
  assert.equal(survived(await run([hang, doubt], 6000)), seeds.length);
});

test('both QEMUs hang when each node doubts the other: neither copy is given up, and one goes on', async () => {
  const when = { atMs: atMs - 1 };
  const hangs = (['primary', 'secondary'] as const).map(
    (on, index): Fault => ({ kind: 'hang-vm', on, when, forMs: 2900 + 1000 * index, choice: 0 }),
  );
  assert.equal(survived(await run([...hangs, doubt], 6000)), seeds.length);
});

test("the secondary's QEMU hangs when each node doubts the other: the primary goes on", async () => {
  const hang: Fault = { kind: 'hang-vm', on: 'secondary', when: { atMs: atMs - 1 }, forMs: 60_000, choice: 0 };
  assert.equal(survived(await run([hang, doubt], 6000)), seeds.length);
});

test('an apply fails while each node doubts the other: the primary goes on', async () => {
  const when = { point: 'apply.stopped' as const, nth: 3 };
  const failing: Fault = { kind: 'fail-load', on: 'secondary', when, forMs: 1, choice: 0 };
  assert.equal(survived(await run([failing, { ...doubt, when, choice: 1 }])), seeds.length);
});

test('a survivor that dies with the term takes the VM with it, and the old primary says nothing', async () => {
  const failover: Fault = { kind: 'operator-failover', on: 'primary', when: { atMs }, forMs: 1, choice: 0 };
  const when = { point: 'takeover.claimed' as const, nth: 1 };
  const death: Fault = { kind: 'kill-host', on: 'secondary', when, forMs: 1, choice: 0 };
  const outcomes = await run([failover, death]);
  assert.ok(survived(outcomes) < seeds.length, 'a limit that is gone: say so in docs/PROTOCOL.md');
});
