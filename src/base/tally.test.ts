// What happens often is told seldom, and nothing of it is left out of the count.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Clock } from './clock.ts';
import { tallyEveryMs, tallyKindsMax } from './limits.ts';
import { Tally } from './tally.ts';

function stage() {
  const due: { at: number; action: () => void }[] = [];
  let now = 0;
  const clock: Clock = {
    now: () => now,
    after: (delayMs, action) => {
      const one = { at: now + delayMs, action };
      due.push(one);
      return () => void due.splice(due.indexOf(one), 1);
    },
    every: () => () => undefined,
  };
  const told: string[] = [];
  const tally = new Tally(clock, (kind, count, detail) => told.push(`${count} ${kind}: ${detail}`));
  const pass = (ms: number) => {
    now += ms;
    for (const one of due.filter(({ at }) => at <= now)) {
      due.splice(due.indexOf(one), 1);
      one.action();
    }
  };
  return { tally, told, pass, due };
}

test('the first is told at once, those that follow together, and silence ends it', () => {
  const { tally, told, pass, due } = stage();
  for (let count = 0; count < 1000; count += 1) tally.note('tls', `try ${count}`);
  tally.note('token', 'guess');
  assert.deepEqual(told.splice(0), ['1 tls: try 0', '1 token: guess']);
  pass(tallyEveryMs);
  assert.deepEqual(told.splice(0), ['999 tls: try 999']);
  pass(tallyEveryMs);
  assert.deepEqual(told, []);
  assert.equal(due.length, 0);
  tally.note('tls', 'again');
  assert.deepEqual(told, ['1 tls: again']);
});

test('kinds that a stranger makes up are counted together, and what was not told yet is told at the end', () => {
  const { tally, told, due } = stage();
  for (let count = 0; count < 10 * tallyKindsMax; count += 1) tally.note(`kind ${count}`, 'x');
  assert.ok(told.length <= tallyKindsMax + 1, `${told.length} lines`);
  tally.note('kind 0', 'y');
  told.length = 0;
  tally.close();
  const sum = told.reduce((total, line) => total + Number.parseInt(line, 10), 0);
  assert.equal(sum, 9 * tallyKindsMax);
  assert.equal(due.length, 0);
});
