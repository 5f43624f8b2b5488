// How a secondary leaves, once and for one reason, and what it does with its primary in doubt.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type SecondaryEvent, SecondaryPair } from './secondary-pair.ts';

function run(...events: SecondaryEvent[]): { pair: SecondaryPair; last: string[] } {
  const pair = new SecondaryPair();
  let last: string[] = [];
  for (const event of events) last = pair.on(event).map((action) => action.kind);
  return { pair, last };
}

const protectedBy: SecondaryEvent[] = [
  { kind: 'session' },
  { kind: 'staged', epoch: 1 },
  { kind: 'applied', epoch: 1 },
];

test('no new session begins before everything of the old one is gone', () => {
  const { pair, last } = run(...protectedBy, { kind: 'vmEnded', why: 'killed' });
  assert.deepEqual(last, ['leave']);
  assert.equal(pair.state.kind, 'leaving');
  assert.deepEqual(pair.on({ kind: 'session' }), []);
  assert.equal(pair.state.kind, 'leaving');
  pair.on({ kind: 'left' });
  pair.on({ kind: 'session' });
  assert.equal(pair.state.kind, 'joining');
});

test('a secondary whose primary kept the term leaves, and is free for a new session', () => {
  const { pair, last } = run(
    ...protectedBy,
    { kind: 'linkLost', why: 'dropped' },
    { kind: 'aloneClaimed', outcome: 'lost' },
  );
  assert.deepEqual(last, ['leave']);
  pair.on({ kind: 'left' });
  assert.deepEqual(pair.state, { kind: 'idle', why: 'the primary kept the term' });
});

test('what it was leaving for happens once: later troubles of the same session change nothing', () => {
  const { pair } = run(...protectedBy, { kind: 'vmEnded', why: 'killed' });
  for (const event of [
    { kind: 'linkLost', why: 'x' },
    { kind: 'applyFailed', epoch: 1, why: 'x' },
    { kind: 'handover', why: 'x' },
    { kind: 'silence' },
    { kind: 'staged', epoch: 2 },
  ] as const)
    assert.deepEqual(pair.on(event), []);
});

test('a checkpoint that is complete while another one is applied is not committed: there is one to go back to at most', () => {
  const { pair, last } = run({ kind: 'session' }, { kind: 'staged', epoch: 1 });
  assert.deepEqual(last, ['commit', 'apply']);
  const before = pair.state;
  assert.deepEqual(pair.on({ kind: 'staged', epoch: 2 }), []);
  assert.deepEqual(pair.state, before);
  pair.on({ kind: 'applied', epoch: 1 });
  assert.equal(pair.on({ kind: 'staged', epoch: 2 }).length, 2);
});

test('in doubt during an apply a secondary lends nothing more at once, and claims the term when the apply is done', () => {
  for (const doubt of [
    { kind: 'silence' },
    { kind: 'linkLost', why: 'dead' },
    { kind: 'handover', why: 'x' },
  ] as const) {
    const { pair, last } = run({ kind: 'session' }, { kind: 'staged', epoch: 1 }, doubt);
    assert.deepEqual(last, ['withhold']);
    assert.deepEqual(pair.on({ kind: 'aloneClaimed', outcome: 'won' }), [], 'it has asked for nothing yet');
    assert.deepEqual(pair.on({ kind: 'applied', epoch: 1 }), [{ kind: 'claimAlone' }]);
    assert.deepEqual(
      pair.on({ kind: 'aloneClaimed', outcome: 'won' }).map((action) => action.kind),
      ['takeOver'],
    );
  }
});

test('an apply that fails while the primary is in doubt leaves the term to it', () => {
  const failed = { kind: 'applyFailed', epoch: 2, why: 'no memory' } as const;
  const { pair, last } = run(...protectedBy, { kind: 'staged', epoch: 2 }, { kind: 'linkLost', why: 'cut' }, failed);
  assert.deepEqual(last, ['leave']);
  assert.deepEqual(pair.on({ kind: 'applied', epoch: 2 }), []);
});

test('a secondary that cannot write its disks is no rival of its primary; with the primary in doubt it goes on', () => {
  const { pair, last } = run(...protectedBy, { kind: 'disksFailed', why: 'full' });
  assert.deepEqual(last, ['leave']);
  assert.deepEqual(pair.on({ kind: 'linkLost', why: 'dropped' }), []);
  const late = run(...protectedBy, { kind: 'linkLost', why: 'dead' }, { kind: 'disksFailed', why: 'full' });
  assert.deepEqual(late.last, []);
  assert.equal(late.pair.state.kind, 'suspecting');
});

test('a secondary that is dismissed gives its copy up; one whose primary is in doubt is needed, and keeps it', () => {
  const dismissed = { kind: 'dismissed', why: 'placed elsewhere' } as const;
  const { pair } = run(...protectedBy);
  assert.equal(pair.isNeeded, false);
  assert.deepEqual(pair.on(dismissed), [{ kind: 'leave', why: 'placed elsewhere' }]);
  assert.deepEqual(pair.on({ kind: 'silence' }), [], 'it never claims the term from then on');
  const doubt: SecondaryEvent[] = [...protectedBy, { kind: 'linkLost', why: 'dead' }];
  const won: SecondaryEvent[] = [...doubt, { kind: 'aloneClaimed', outcome: 'won' }];
  for (const events of [doubt, won, [...won, { kind: 'tookOver' } as const]]) {
    const { pair: needed } = run(...events);
    const { kind } = needed.state;
    assert.equal(needed.isNeeded, true, kind);
    assert.deepEqual(needed.on(dismissed), []);
    assert.equal(needed.state.kind, kind);
  }
});
