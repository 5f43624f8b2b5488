// The state machines of a pair and the policy of checkpoints, by single events and by random ones: in which order a
// node may claim, capture, release and take over.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { anotherRound, handsOverForUplink, Policy } from './policy.ts';
import { type PrimaryAction, type PrimaryEvent, PrimaryPair } from './primary-pair.ts';
import { type SecondaryAction, type SecondaryEvent, SecondaryPair } from './secondary-pair.ts';

const won = { outcome: 'won' } as const;

/** A primary that is protected, between two checkpoints, in epoch 1. */
function protectedPrimary(): PrimaryPair {
  const pair = new PrimaryPair();
  const events: PrimaryEvent[] = [
    { kind: 'peerReady' },
    { kind: 'roundSent', dirtyPages: 10 },
    { kind: 'pairClaimed', ...won },
    { kind: 'captured', epoch: 1 },
    { kind: 'committed', epoch: 1 },
    { kind: 'applied', epoch: 1 },
  ];
  for (const event of events) pair.on(event);
  assert.deepEqual(pair.state, {
    kind: 'protected',
    phase: 'running',
    epoch: 1,
    refusals: 0,
    complete: true,
    loaded: true,
    asked: 0,
    covered: 0,
  });
  return pair;
}

function kinds(actions: (PrimaryAction | SecondaryAction)[]): string[] {
  return actions.map((action) => action.kind);
}

test('the record of the pair is claimed before the first checkpoint is captured', () => {
  const pair = new PrimaryPair();
  assert.deepEqual(kinds(pair.on({ kind: 'peerReady' })), ['startMirroring', 'sendRound']);
  assert.deepEqual(kinds(pair.on({ kind: 'roundSent', dirtyPages: 5000 })), ['sendRound']);
  assert.deepEqual(
    kinds(pair.on({ kind: 'roundSent', dirtyPages: 4900 })),
    ['claimPair'],
    'rounds that do not shrink end',
  );
  assert.deepEqual(pair.on({ kind: 'pairClaimed', ...won }), [{ kind: 'capture', reason: { kind: 'initial' } }]);
});

test('output is released by the commit of the checkpoint in flight and by no other', () => {
  const pair = protectedPrimary();
  assert.deepEqual(kinds(pair.on({ kind: 'want', reason: { kind: 'payload' } })), ['capture']);
  assert.deepEqual(pair.on({ kind: 'committed', epoch: 2 }), [], 'not captured yet');
  pair.on({ kind: 'captured', epoch: 2 });
  assert.deepEqual(pair.on({ kind: 'committed', epoch: 1 }), [], 'an older commit');
  assert.deepEqual(pair.on({ kind: 'committed', epoch: 2 }), [{ kind: 'release', epoch: 2 }]);
  assert.deepEqual(pair.on({ kind: 'committed', epoch: 2 }), [], 'the same again');
  assert.deepEqual(pair.on({ kind: 'applied', epoch: 2 }), [{ kind: 'compare', epoch: 2, answers: 0 }]);
});

test('one checkpoint is in flight at a time', () => {
  const pair = protectedPrimary();
  pair.on({ kind: 'want', reason: { kind: 'timeout' } });
  assert.deepEqual(pair.on({ kind: 'want', reason: { kind: 'payload' } }), []);
  pair.on({ kind: 'captured', epoch: 2 });
  assert.deepEqual(pair.on({ kind: 'want', reason: { kind: 'payload' } }), []);
});

test('a refused checkpoint never happened; a secondary that refuses three in a row is given up', () => {
  const pair = protectedPrimary();
  for (let count = 0; count < 2; count += 1) {
    pair.on({ kind: 'want', reason: { kind: 'payload' } });
    pair.on({ kind: 'captured', epoch: 2 });
    assert.deepEqual(kinds(pair.on({ kind: 'refused', epoch: 2, why: 'too large' })), ['abortCapture']);
    assert.equal(pair.state.kind === 'protected' && pair.state.epoch, 1);
  }
  pair.on({ kind: 'want', reason: { kind: 'payload' } });
  pair.on({ kind: 'captured', epoch: 2 });
  const actions = kinds(pair.on({ kind: 'refused', epoch: 2, why: 'too large' }));
  assert.deepEqual(actions, ['abortCapture', 'shutGate', 'dropPeer', 'claimAlone']);
});

test('a capture that fails keeps its epoch and what is held; three in a row end the protection', () => {
  const pair = protectedPrimary();
  for (let count = 0; count < 2; count += 1) {
    pair.on({ kind: 'want', reason: { kind: 'payload' } });
    assert.deepEqual(pair.on({ kind: 'captureFailed', why: 'the card never stops sending' }), []);
    assert.equal(pair.state.kind === 'protected' && pair.state.phase === 'running' && pair.state.epoch, 1);
  }
  pair.on({ kind: 'want', reason: { kind: 'payload' } });
  const actions = kinds(pair.on({ kind: 'captureFailed', why: 'the card never stops sending' }));
  assert.deepEqual(actions, ['shutGate', 'dropPeer', 'claimAlone']);
});

test('from the first doubt the gate is shut, and only the term opens it', () => {
  for (const doubt of [{ kind: 'linkLost', why: 'test' }, { kind: 'silence' }] as const) {
    const pair = protectedPrimary();
    assert.deepEqual(kinds(pair.on(doubt)), ['shutGate', 'dropPeer', 'claimAlone']);
    assert.deepEqual(kinds(pair.on({ kind: 'aloneClaimed', outcome: 'error' })), ['claimAlone'], 'asked again');
    assert.deepEqual(kinds(pair.on({ kind: 'aloneClaimed', ...won })), ['goAlone']);
  }
});

test('a primary that loses the term is fenced for good', () => {
  const pair = protectedPrimary();
  pair.on({ kind: 'silence' });
  assert.deepEqual(kinds(pair.on({ kind: 'aloneClaimed', outcome: 'lost' })), ['shutGate', 'fence']);
  assert.deepEqual(pair.on({ kind: 'peerReady' }), []);
  assert.deepEqual(pair.on({ kind: 'aloneClaimed', ...won }), []);
});

test('a VM that dies is handed over; one whose guest ended is not', () => {
  assert.deepEqual(kinds(protectedPrimary().on({ kind: 'vmEnded', why: 'killed', byGuest: false })), [
    'shutGate',
    'tellHandover',
    'fence',
  ]);
  assert.deepEqual(kinds(protectedPrimary().on({ kind: 'vmEnded', why: 'poweroff', byGuest: true })), ['tellEnd']);
});

/** A secondary that holds epoch 1, applied. */
function protectedSecondary(): SecondaryPair {
  const pair = new SecondaryPair();
  pair.on({ kind: 'session' });
  assert.deepEqual(
    kinds(pair.on({ kind: 'staged', epoch: 1 })),
    ['commit', 'apply'],
    'acknowledged before it is applied',
  );
  pair.on({ kind: 'applied', epoch: 1 });
  return pair;
}

test('a secondary takes over only with the term', () => {
  const pair = protectedSecondary();
  assert.deepEqual(kinds(pair.on({ kind: 'linkLost', why: 'test' })), ['withhold', 'claimAlone']);
  assert.deepEqual(kinds(pair.on({ kind: 'aloneClaimed', outcome: 'error' })), ['claimAlone']);
  assert.deepEqual(kinds(pair.on({ kind: 'aloneClaimed', ...won })), ['takeOver']);
  pair.on({ kind: 'tookOver' });
  assert.equal(pair.state.kind, 'primary');
});

test('a complete checkpoint is applied before a takeover', () => {
  const pair = protectedSecondary();
  pair.on({ kind: 'staged', epoch: 2 });
  assert.deepEqual(kinds(pair.on({ kind: 'linkLost', why: 'test' })), ['withhold'], 'waits for the apply');
  assert.deepEqual(kinds(pair.on({ kind: 'applied', epoch: 2 })), ['claimAlone']);
  assert.deepEqual(kinds(pair.on({ kind: 'aloneClaimed', ...won })), ['takeOver']);
});

test('a secondary without a complete checkpoint never claims', () => {
  const pair = new SecondaryPair();
  pair.on({ kind: 'session' });
  assert.deepEqual(kinds(pair.on({ kind: 'linkLost', why: 'test' })), ['leave']);
});

test('a secondary that cannot apply what it committed leaves, and never claims', () => {
  const pair = protectedSecondary();
  pair.on({ kind: 'staged', epoch: 2 });
  assert.deepEqual(kinds(pair.on({ kind: 'applyFailed', epoch: 2, why: 'test' })), ['leave']);
  assert.deepEqual(pair.on({ kind: 'linkLost', why: 'test' }), []);
});

const primaryEvents: fc.Arbitrary<PrimaryEvent> = fc.oneof(
  fc.constantFrom<PrimaryEvent>(
    { kind: 'peerReady' },
    { kind: 'roundSent', dirtyPages: 1 },
    { kind: 'want', reason: { kind: 'payload' } },
    { kind: 'captureFailed', why: 'test' },
    { kind: 'linkLost', why: 'test' },
    { kind: 'silence' },
    { kind: 'handover', why: 'test' },
  ),
  fc.record({ kind: fc.constant('pairClaimed' as const), outcome: fc.constantFrom('won', 'lost', 'error') }),
  fc.record({ kind: fc.constant('aloneClaimed' as const), outcome: fc.constantFrom('won', 'lost', 'error') }),
  fc.record({ kind: fc.constantFrom('captured', 'committed', 'applied'), epoch: fc.integer({ min: 1, max: 4 }) }),
  fc.record({ kind: fc.constant('refused' as const), epoch: fc.integer({ min: 1, max: 4 }), why: fc.constant('test') }),
  fc.record({ kind: fc.constant('vmEnded' as const), why: fc.constant('test'), byGuest: fc.boolean() }),
);

test('whatever happens to a primary: it moves legally, and after a shut gate nothing is released without the term', () => {
  fc.assert(
    fc.property(fc.array(primaryEvents, { maxLength: 60 }), (events) => {
      const pair = new PrimaryPair();
      let shut = false;
      for (const event of events)
        for (const action of pair.on(event)) {
          if (action.kind === 'shutGate') shut = true;
          if (action.kind === 'goAlone') shut = false;
          if (shut) assert.notEqual(action.kind, 'release');
        }
    }),
    { numRuns: 500 },
  );
});

const secondaryEvents: fc.Arbitrary<SecondaryEvent> = fc.oneof(
  fc.constantFrom<SecondaryEvent>(
    { kind: 'session' },
    { kind: 'linkLost', why: 'test' },
    { kind: 'silence' },
    { kind: 'handover', why: 'test' },
    { kind: 'guestEnded', why: 'test' },
    { kind: 'vmEnded', why: 'test' },
    { kind: 'tookOver' },
    { kind: 'takeoverFailed', why: 'test' },
  ),
  fc.record({ kind: fc.constantFrom('staged', 'applied'), epoch: fc.integer({ min: 1, max: 4 }) }),
  fc.record({ kind: fc.constant('applyFailed' as const), epoch: fc.constant(1), why: fc.constant('test') }),
  fc.record({ kind: fc.constant('aloneClaimed' as const), outcome: fc.constantFrom('won', 'lost', 'error') }),
);

test('whatever happens to a secondary: it moves legally, and takes over only after a term it asked for and won', () => {
  fc.assert(
    fc.property(fc.array(secondaryEvents, { maxLength: 60 }), (events) => {
      const pair = new SecondaryPair();
      let asked = false;
      let term = false;
      let withheld = false;
      for (const event of events) {
        if (event.kind === 'aloneClaimed' && asked) term = event.outcome === 'won' || term;
        const actions = pair.on(event);
        const { state } = pair;
        const applying = state.kind === 'suspecting' && state.applying;
        for (const action of actions) {
          if (action.kind === 'withhold') withheld = true;
          if (action.kind === 'claimAlone') asked = true;
          if (action.kind === 'claimAlone') assert.ok(withheld && !applying);
          if (action.kind === 'takeOver') assert.ok(term && !applying);
          if (action.kind === 'leave') [asked, term, withheld] = [false, false, false];
        }
      }
    }),
    { numRuns: 500 },
  );
});

test('remus asks for a checkpoint at every interval, colo at the longest epoch, both when much is dirty', () => {
  const options = { intervalMs: 25, epochMaxMs: 1000, dirtyPagesMax: 100 };
  const remus = new Policy({ ...options, mode: 'remus' }, 0);
  const colo = new Policy({ ...options, mode: 'colo' }, 0);
  assert.equal(remus.due(24, 0), undefined);
  assert.equal(remus.due(25, 0), 'interval');
  assert.equal(colo.due(999, 99), undefined);
  assert.equal(colo.due(999, 100), 'dirty');
  assert.equal(colo.due(1000, 0), 'periodic');
  colo.captured(1000);
  assert.equal(colo.due(1001, 0), undefined);
});

test('the initial copy goes on only while its rounds shrink', () => {
  assert.equal(anotherRound({ round: 0, dirtyPages: 50_000, lastDirtyPages: Number.POSITIVE_INFINITY }), true);
  assert.equal(anotherRound({ round: 1, dirtyPages: 49_000, lastDirtyPages: 50_000 }), false);
  assert.equal(anotherRound({ round: 1, dirtyPages: 900, lastDirtyPages: 50_000 }), false);
  assert.equal(anotherRound({ round: 8, dirtyPages: 10_000, lastDirtyPages: 50_000 }), false);
});

test('a primary hands over for its uplink when that is gone and that of its secondary is well, each for a while', () => {
  const [gone, well, unknown] = ['gone', '', undefined];
  const decides = (own: string, ownForMs: number, peer: string | undefined, peerForMs: number) =>
    handsOverForUplink({ own: { problem: own, forMs: ownForMs }, peer: { problem: peer, forMs: peerForMs } });
  assert.equal(decides(gone, 1000, well, 1000), true);
  assert.equal(decides(gone, 999, well, 5000), false, 'it may only bounce');
  assert.equal(decides(gone, 5000, well, 999), false, 'what ailed both may be over for both');
  assert.equal(decides(gone, 5000, gone, 5000), false, 'it would help nobody');
  assert.equal(decides(gone, 5000, unknown, 5000), false);
  assert.equal(decides(well, 5000, well, 5000), false);
});
