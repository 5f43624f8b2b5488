// A node's dealings with an arbiter that forgets: what it says then decides nothing.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MemoryArbiter, type Terms as Records } from '../arbiter/memory.ts';
import { systemClock } from '../base/clock.ts';
import { silentLog } from '../base/log.ts';
import { Terms } from './terms.ts';

function termsOf(node: string, records: Records): Terms {
  const config = { vm: 'web', node };
  return new Terms({ config, clock: systemClock, log: silentLog, arbiter: new MemoryArbiter(records) });
}

test('terms go from a first start through pairs and takeovers', async () => {
  const records: Records = new Map();
  const [a, b] = [termsOf('a', records), termsOf('b', records)];
  assert.equal(await a.claimFirst(), 'won');
  assert.equal(await b.claimFirst(), 'lost');
  assert.equal(await a.claimPair('b'), 'won');
  assert.equal(await b.claimAlone(), 'won');
  assert.equal(await a.claimAlone(), 'lost');
  assert.deepEqual(records.get('web'), { term: 3, owner: 'b', peer: null });
});

test('a primary that has nothing to run any more when the record is read leaves the term to its peer', async () => {
  const records: Records = new Map();
  const [a, b] = [termsOf('a', records), termsOf('b', records)];
  assert.equal(await a.claimFirst(), 'won');
  assert.equal(await a.claimPair('b'), 'won');
  let lives = true;
  const claim = a.claimAlone(() => lives);
  lives = false;
  assert.equal(await claim, 'lost');
  assert.deepEqual(records.get('web'), { term: 2, owner: 'a', peer: 'b' });
  assert.equal(await b.claimAlone(), 'won');
});

test('a node that the newest record does not name has lost the term, and one that is not answered has not', async () => {
  const records: Records = new Map();
  const [a, b] = [termsOf('a', records), termsOf('b', records)];
  assert.equal(await a.claimFirst(), 'won');
  assert.equal(await b.isLost(), true);
  assert.equal(await a.claimPair('b'), 'won');
  assert.deepEqual([await a.isLost(), await b.isLost()], [false, false]);
  assert.equal(await b.claimAlone(), 'won');
  assert.deepEqual([await a.isLost(), await b.isLost()], [true, false]);
  records.clear();
  assert.equal(await a.isLost(), false);
});

test('an arbiter that has lost its data takes the VM from nobody', async () => {
  const records: Records = new Map();
  const [a, b] = [termsOf('a', records), termsOf('b', records)];
  assert.equal(await a.claimFirst(), 'won');
  assert.equal(await a.claimPair('b'), 'won');
  records.clear();
  for (const claim of [a.claimPair('b'), a.claimAlone(), b.claimAlone(), a.claimFirst()])
    assert.equal(await claim, 'error');
  assert.equal(records.size, 0);
});

test('an arbiter that was put back to an older record decides nothing until it is right again', async () => {
  const records: Records = new Map();
  const [a, b] = [termsOf('a', records), termsOf('b', records)];
  assert.equal(await a.claimFirst(), 'won');
  assert.equal(await a.claimPair('b'), 'won');
  const old = new Map(records);
  assert.equal(await b.claimAlone(), 'won');
  const newest = new Map(records);
  records.set('web', old.get('web') ?? assert.fail());
  assert.equal(await b.claimPair('a'), 'error');
  assert.equal(await b.claimAlone(), 'error');
  assert.equal(await b.look(), 'error');
  records.set('web', newest.get('web') ?? assert.fail());
  assert.equal(await b.claimPair('a'), 'won');
});
