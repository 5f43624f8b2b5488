// What strangers can cost is bounded, and a peer is let in while they knock.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Door } from './door.ts';
import { knownSourcesMax, sourcesMax } from './limits.ts';

const limits = { burst: 10, perSecond: 5, strangersBurst: 20, strangersPerSecond: 8, atOnce: 8 };

/** How many of so many knocks in a row get in, each over before the next. */
function admitted(door: Door, count: number, address: (index: number) => string, now: number): number {
  let sum = 0;
  for (let index = 0; index < count; index += 1) {
    if (door.knock(address(index), now) !== 'admitted') continue;
    sum += 1;
    door.done(address(index), false, now);
  }
  return sum;
}

test('one source gets its burst and then its rate, and is let in again after a pause', () => {
  const door = new Door(limits, 0);
  assert.equal(
    admitted(door, 100, () => '10.0.0.1', 0),
    10,
  );
  assert.equal(
    admitted(door, 100, () => '10.0.0.1', 1000),
    5,
  );
  assert.equal(
    admitted(door, 100, () => '10.0.0.1', 60_000),
    10,
  );
  assert.deepEqual(door.refused, { rate: 275, busy: 0 });
});

test('many sources share one bound, and so do the addresses of an IPv6 network', () => {
  const door = new Door(limits, 0);
  assert.equal(
    admitted(door, 1000, (index) => `10.0.${index >> 8}.${index & 255}`, 0),
    20,
  );
  const other = new Door(limits, 0);
  assert.equal(
    admitted(other, 1000, (index) => `2001:db8::1:${index.toString(16)}`, 0),
    10,
  );
});

test('a source that has proven who it is gets in while strangers knock, within its own bound', () => {
  const door = new Door(limits, 0);
  assert.equal(door.knock('10.0.0.2', 0), 'admitted');
  door.done('10.0.0.2', true, 0);
  admitted(door, 10_000, (index) => `10.9.${index >> 8}.${index & 255}`, 0);
  assert.equal(
    admitted(door, 100, () => '10.0.0.2', 0),
    9,
  );
});

test('strangers that begin and say nothing take the places of strangers alone', () => {
  const door = new Door(limits, 0);
  door.knock('10.0.0.2', 0);
  door.done('10.0.0.2', true, 0);
  const begun = Array.from({ length: 20 }, (_, index) => door.knock(`10.1.0.${index}`, 0));
  assert.equal(begun.filter((one) => one === 'admitted').length, 8);
  assert.equal(door.knock('10.0.0.2', 0), 'admitted');
  assert.deepEqual(
    Array.from({ length: 5 }, () => door.knock('10.0.0.2', 0)),
    ['admitted', 'admitted', 'admitted', 'busy', 'busy'],
  );
  assert.equal(door.refused.busy, 14);
});

test('what is remembered of sources is bounded', () => {
  const door = new Door({ ...limits, strangersBurst: 1e6, atOnce: 1e6 }, 0);
  for (let index = 0; index < 4 * sourcesMax; index += 1)
    door.knock(`10.${index >> 16}.${(index >> 8) & 255}.${index & 255}`, 0);
  for (let index = 0; index < 4 * knownSourcesMax; index += 1) door.done(`10.200.0.${index}`, true, 0);
  assert.ok((Reflect.get(door, 'strangers') as Map<string, unknown>).size <= sourcesMax);
  assert.equal((Reflect.get(door, 'known') as Map<string, unknown>).size, knownSourcesMax);
});
