// The judge of register histories bites: it accepts what one place could have done, and nothing else.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Call, judge } from './linearizable.ts';

const write = (client: number, value: string, called: number, returned?: number): Call => ({
  operation: { client, kind: 'write', value },
  called,
  returned,
});
const read = (client: number, value: string | null, called: number, returned?: number): Call => ({
  operation: { client, kind: 'read', value },
  called,
  returned,
});

test('one after the other: a read sees the newest write, and nothing before the first', () => {
  assert.equal(judge([read(1, null, 1, 2), write(1, 'x', 3, 4), read(2, 'x', 5, 6)]), undefined);
});

test('a write that was acknowledged and then lost is seen', () => {
  const history = [write(1, 'x', 1, 2), write(1, 'y', 3, 4), read(2, 'x', 5, 6)];
  assert.equal(judge(history), 'client 2 read x at 5, when the register held y');
});

test('a stale read after a newer value was read is seen, though the write is still open', () => {
  const history = [write(1, 'x', 1, 2), write(1, 'y', 3, 20), read(2, 'y', 5, 6), read(3, 'x', 7, 8)];
  assert.match(judge(history) ?? '', /client 3 read x/);
  assert.equal(judge([write(1, 'x', 1, 2), write(1, 'y', 3, 20), read(2, 'x', 5, 6), read(3, 'y', 7, 8)]), undefined);
});

test('a value that nobody wrote is seen', () => {
  assert.match(judge([write(1, 'x', 1, 4), read(2, 'z', 2, 3)]) ?? '', /read z/);
});

test('a write without an answer may have happened at any time, or never', () => {
  assert.equal(judge([write(1, 'x', 1), read(2, null, 2, 3), read(2, 'x', 4, 5)]), undefined);
  assert.equal(judge([write(1, 'x', 1), read(2, null, 2, 3), read(2, null, 4, 5)]), undefined);
  assert.match(judge([write(1, 'x', 1), read(2, 'x', 2, 3), read(2, null, 4, 5)]) ?? '', /read nothing/);
});

/** What a real register does: each operation takes effect at an instant of its own between call and return. */
function play(steps: readonly { isWrite: boolean; start: number; before: number; after: number }[]): Call[] {
  const clientEnd = [0, 0, 0, 0];
  const timed = steps.map((step, index) => {
    const client = index % clientEnd.length;
    const called = (clientEnd[client] ?? 0) + 1 + step.start;
    const effect = called + 1 + step.before;
    const returned = effect + 1 + step.after;
    clientEnd[client] = returned;
    return { ...step, index, client, called, effect, returned };
  });
  let value: string | null = null;
  const calls: Call[] = [];
  for (const one of timed.toSorted((left, right) => left.effect - right.effect || left.index - right.index)) {
    if (one.isWrite) value = `v${one.index}`;
    calls.push(
      one.isWrite
        ? write(one.client, `v${one.index}`, one.called, one.returned)
        : read(one.client, value, one.called, one.returned),
    );
  }
  return calls;
}

const steps = fc.array(fc.record({ isWrite: fc.boolean(), start: fc.nat(5), before: fc.nat(8), after: fc.nat(8) }), {
  minLength: 1,
  maxLength: 60,
});

test('whatever a register really did is accepted; with one read told an older value it is not', () => {
  let bitten = 0;
  fc.assert(
    fc.property(steps, (history) => {
      const calls = play(history);
      assert.equal(judge(calls), undefined);
      // A read is told what was overwritten before it was even called.
      for (const [index, { operation, called }] of calls.entries()) {
        if (operation.kind !== 'read') continue;
        const over = calls.filter((one) => one.operation.kind === 'write' && (one.returned ?? 0) < called);
        const newest = over.toSorted((left, right) => left.called - right.called).at(-1);
        const stale = over.find((one) => (one.returned ?? 0) < (newest?.called ?? 0));
        if (stale === undefined) continue;
        const wrong = calls.with(index, {
          ...(calls[index] as Call),
          operation: { client: operation.client, kind: 'read', value: stale.operation.value },
        });
        assert.notEqual(judge(wrong), undefined);
        bitten += 1;
        return;
      }
    }),
    { numRuns: 300 },
  );
  assert.ok(bitten > 10, `only ${bitten} histories could be spoiled`);
});
