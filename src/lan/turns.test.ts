// What is a turn of speaking for an address, and what is one late write in the midst of another's turn.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { noteTurn, type Turn, withoutLate } from './turns.ts';

/** [port, bytes of each frame, at] of each frame. */
function heard(...frames: [port: number, bytes: number, now: number][]): Turn[] {
  const turns: Turn[] = [];
  for (const [port, bytes, now] of frames) noteTurn(turns, { port, bytes, now }, 10);
  return turns;
}

const ports = (turns: readonly Turn[]) => turns.map(({ port }) => port);

test('frames of one port in a row are one turn, and beyond the bound no turn is begun', () => {
  const turns = heard([0, 60, 1], [0, 70, 5], [2, 60, 9]);
  assert.deepEqual(turns, [
    { port: 0, frames: 2, bytes: 130, firstAt: 1, lastAt: 5 },
    { port: 2, frames: 1, bytes: 60, firstAt: 9, lastAt: 9 },
  ]);
  noteTurn(turns, { port: 4, bytes: 60, now: 10 }, 2);
  assert.deepEqual(ports(turns), [0, 2]);
});

test('one write of the former speaker in the midst of a turn is late, and the turn goes on', () => {
  const { turns, late } = withoutLate(heard([0, 9000, 0], [2, 60, 500], [0, 1500, 900], [0, 60, 901], [2, 60, 902]));
  assert.deepEqual(ports(turns), [0, 2]);
  assert.deepEqual(turns[1], { port: 2, frames: 2, bytes: 120, firstAt: 500, lastAt: 902 });
  assert.deepEqual(late, [{ port: 0, frames: 2, bytes: 1560, firstAt: 900, lastAt: 901 }]);
});

test('more than one write, for longer, of another node, or with somebody else after it is a turn', () => {
  assert.deepEqual(ports(withoutLate(heard([0, 60, 0], [2, 60, 1], [0, 40_000, 2], [2, 60, 3])).turns), [0, 2, 0, 2]);
  assert.deepEqual(
    ports(withoutLate(heard([0, 60, 0], [2, 60, 1], [0, 60, 2], [0, 60, 200], [2, 60, 201])).turns),
    [0, 2, 0, 2],
  );
  assert.deepEqual(ports(withoutLate(heard([0, 60, 0], [2, 60, 1], [4, 60, 2], [2, 60, 3])).turns), [0, 2, 4, 2]);
  assert.deepEqual(ports(withoutLate(heard([0, 60, 0], [2, 60, 1], [0, 60, 2], [4, 60, 3])).turns), [0, 2, 0, 4]);
  assert.deepEqual(ports(withoutLate(heard([0, 60, 0], [0, 60, 1])).turns), [0]);
});
