// A primary's pair over several secondaries and in doubt: when its VM is over, handed over, or left to the other node.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type PrimaryEvent, PrimaryPair } from './primary-pair.ts';

const toInitialCapture: PrimaryEvent[] = [
  { kind: 'peerReady' },
  { kind: 'roundSent', dirtyPages: 0 },
  { kind: 'pairClaimed', outcome: 'won' },
];

function run(pair: PrimaryPair, ...events: PrimaryEvent[]): string[] {
  let last: string[] = [];
  for (const event of events) last = pair.on(event).map((action) => action.kind);
  return last;
}

/** One whole checkpoint of `epoch`, from the capture on. */
const checkpoint = (epoch: number): PrimaryEvent[] => [
  { kind: 'captured', epoch },
  { kind: 'committed', epoch },
  { kind: 'applied', epoch },
];

const lost: PrimaryEvent[] = [
  { kind: 'linkLost', why: 'its process is gone' },
  { kind: 'aloneClaimed', outcome: 'won' },
];

/** What a planned failover begins with. */
const offered = ['shutGate', 'tellHandover', 'dropPeer', 'claimAlone'];

function isComplete(pair: PrimaryPair): boolean {
  return pair.state.kind === 'protected' && pair.state.complete;
}

test('the second secondary is protected by its own first checkpoint, not by epochs of the one before', () => {
  const pair = new PrimaryPair();
  run(pair, ...toInitialCapture, ...checkpoint(1));
  assert.ok(isComplete(pair));
  run(pair, ...lost, ...toInitialCapture, { kind: 'captured', epoch: 2 });
  assert.ok(!isComplete(pair));
  run(pair, { kind: 'committed', epoch: 2 });
  assert.ok(isComplete(pair));
});

test('a second secondary that refuses its first checkpoint is given up, like the first', () => {
  const pair = new PrimaryPair();
  run(pair, ...toInitialCapture, ...checkpoint(1), ...lost, ...toInitialCapture, { kind: 'captured', epoch: 2 });
  const actions = run(pair, { kind: 'refused', epoch: 2, why: 'no room' });
  assert.deepEqual(actions, ['abortCapture', 'shutGate', 'dropPeer', 'claimAlone']);
});

test('a VM that is lost before anybody holds a checkpoint of it is over', () => {
  const pair = new PrimaryPair();
  const actions = run(pair, ...toInitialCapture, { kind: 'vmEnded', why: 'killed', byGuest: false });
  assert.deepEqual(actions, ['tellEnd']);
  assert.equal(pair.state.kind, 'ended');
});

test('nothing counts as loaded before the secondary has loaded a checkpoint of this pairing', () => {
  const pair = new PrimaryPair();
  const isLoaded = () => pair.state.kind === 'protected' && pair.state.loaded;
  const begin = [
    { kind: 'peerReady' },
    { kind: 'roundSent', dirtyPages: 0 },
    { kind: 'pairClaimed', outcome: 'won' },
  ] as const;
  for (const event of [...begin, { kind: 'captured', epoch: 1 }, { kind: 'committed', epoch: 1 }] as const) {
    pair.on(event);
    assert.equal(isLoaded(), false, event.kind);
  }
  pair.on({ kind: 'applied', epoch: 1 });
  assert.equal(isLoaded(), true);
  pair.on({ kind: 'linkLost', why: '' });
  pair.on({ kind: 'aloneClaimed', outcome: 'won' });
  for (const event of begin) pair.on(event);
  assert.equal(isLoaded(), false, 'another pairing');
});

test('a VM that is lost while its first checkpoint is on the way is handed over: it may be complete over there', () => {
  const pair = new PrimaryPair();
  const end: PrimaryEvent = { kind: 'vmEnded', why: 'killed', byGuest: false };
  const actions = run(pair, ...toInitialCapture, { kind: 'captured', epoch: 1 }, end);
  assert.deepEqual(actions, ['shutGate', 'tellHandover', 'fence']);
});

test('a failover that is asked for before the secondary could run is not begun', () => {
  const pair = new PrimaryPair();
  assert.deepEqual(run(pair, ...toInitialCapture, { kind: 'handover', why: 'operator' }), []);
});

test('a failover that is asked for during an apply begins when that is done, and a doubt before ends it', () => {
  const asked: PrimaryEvent[] = [
    ...[...toInitialCapture, ...checkpoint(1), { kind: 'want', reason: { kind: 'periodic' } } as const],
    ...[...checkpoint(2).slice(0, 2), { kind: 'handover', why: 'operator' } as const],
  ];
  const pair = new PrimaryPair();
  assert.deepEqual(run(pair, ...asked), []);
  assert.deepEqual(run(pair, { kind: 'applied', epoch: 2 }), ['compare', ...offered]);
  assert.equal(pair.state.kind, 'suspecting');
  const other = new PrimaryPair();
  assert.deepEqual(run(other, ...asked, ...lost), ['goAlone']);
  assert.deepEqual(run(other, ...toInitialCapture, { kind: 'captured', epoch: 3 }, { kind: 'committed', epoch: 3 }), [
    'release',
  ]);
  assert.deepEqual(run(other, { kind: 'applied', epoch: 3 }), ['compare']);
});

test('a failover that is asked for during a capture begins when that checkpoint is applied, or has failed', () => {
  const asked: PrimaryEvent[] = [
    ...[...toInitialCapture, ...checkpoint(1), { kind: 'want', reason: { kind: 'periodic' } } as const],
    { kind: 'handover', why: 'operator' },
  ];
  const offered = ['shutGate', 'tellHandover', 'dropPeer', 'claimAlone'];
  const applied = new PrimaryPair();
  assert.deepEqual(run(applied, ...asked), []);
  assert.deepEqual(run(applied, { kind: 'captured', epoch: 2 }, { kind: 'committed', epoch: 2 }), ['release']);
  assert.deepEqual(run(applied, { kind: 'applied', epoch: 2 }), ['compare', ...offered]);
  const failed = new PrimaryPair();
  run(failed, ...asked);
  assert.deepEqual(run(failed, { kind: 'captureFailed', why: 'QEMU' }), offered);
  const refused = new PrimaryPair();
  run(refused, ...asked, { kind: 'captured', epoch: 2 });
  assert.deepEqual(run(refused, { kind: 'refused', epoch: 2, why: 'damaged' }), ['abortCapture', ...offered]);
});

test('a checkpoint that is wanted during an apply begins when that is done', () => {
  const pair = new PrimaryPair();
  run(pair, ...toInitialCapture, { kind: 'captured', epoch: 1 }, { kind: 'committed', epoch: 1 });
  assert.deepEqual(
    run(pair, { kind: 'want', reason: { kind: 'limit' } }, { kind: 'want', reason: { kind: 'fin' } }),
    [],
  );
  assert.deepEqual(pair.on({ kind: 'applied', epoch: 1 }), [
    { kind: 'compare', epoch: 1, answers: 0 },
    { kind: 'capture', reason: { kind: 'limit' } },
  ]);
  assert.deepEqual(run(pair, ...checkpoint(2)), ['compare'], 'once');
});

/** The requests that the checkpoint of `epoch` answers, and whether another one begins. */
function done(pair: PrimaryPair, epoch: number): { answers: number | undefined; begins: boolean } {
  const actions = pair.on({ kind: 'applied', epoch });
  const compare = actions.find((action) => action.kind === 'compare');
  return { answers: compare?.answers, begins: actions.some(({ kind }) => kind === 'capture') };
}

test("an operator's request is answered by a checkpoint that begins after it, in whatever phase it is asked", () => {
  const ask = (request: number): PrimaryEvent => ({ kind: 'want', reason: { kind: 'operator' }, request });
  for (const phase of [0, 1, 2]) {
    const pair = new PrimaryPair();
    run(pair, ...toInitialCapture, ...checkpoint(1));
    assert.deepEqual(run(pair, ask(1)), ['capture']);
    const [captured, committed] = checkpoint(2).slice(0, 2);
    const before = [captured, committed].filter((event) => event !== undefined);
    assert.deepEqual(run(pair, ...before.slice(0, phase), ask(2)), [], `phase ${phase}`);
    run(pair, ...before.slice(phase));
    assert.deepEqual(done(pair, 2), { answers: 1, begins: true }, `phase ${phase}`);
    run(pair, ...checkpoint(3).slice(0, 2));
    assert.deepEqual(done(pair, 3), { answers: 2, begins: false }, `phase ${phase}`);
  }
});

test('a request that was asked for during a checkpoint that fails has one of its own; one whose own failed waits for the next', () => {
  const pair = new PrimaryPair();
  const ask = (request: number): PrimaryEvent => ({ kind: 'want', reason: { kind: 'operator' }, request });
  run(pair, ...toInitialCapture, ...checkpoint(1), { kind: 'want', reason: { kind: 'periodic' } }, ask(1));
  assert.deepEqual(run(pair, { kind: 'captureFailed', why: 'test' }), ['capture']);
  assert.deepEqual(run(pair, { kind: 'captureFailed', why: 'test' }), []);
  run(pair, { kind: 'want', reason: { kind: 'periodic' } }, ...checkpoint(2).slice(0, 2));
  assert.deepEqual(done(pair, 2), { answers: 1, begins: false });
});

test("a VM that is lost while its secondary is in doubt is the secondary's to run: this node claims no more and comes back", () => {
  const killed: PrimaryEvent = { kind: 'vmEnded', why: 'killed', byGuest: false };
  const doubt: PrimaryEvent = { kind: 'linkLost', why: 'its process is gone' };
  const pair = new PrimaryPair();
  assert.deepEqual(run(pair, ...toInitialCapture, ...checkpoint(1), doubt, killed), ['shutGate', 'fence']);
  assert.equal(pair.state.kind, 'fenced');
  assert.deepEqual(run(pair, { kind: 'aloneClaimed', outcome: 'error' }), []);
  const alone = new PrimaryPair();
  assert.deepEqual(run(alone, ...toInitialCapture, doubt, killed), ['tellEnd'], 'nobody holds a copy');
});

test('a VM that hangs is offered to a secondary that holds a copy, and is not given up before that has the term', () => {
  const hangs: PrimaryEvent = { kind: 'vmHangs', why: 'no answer' };
  for (const before of [checkpoint(1), [...checkpoint(1), { kind: 'want', reason: { kind: 'periodic' } } as const]]) {
    const pair = new PrimaryPair();
    assert.deepEqual(run(pair, ...toInitialCapture, ...before, hangs), offered);
    assert.deepEqual(run(pair, hangs), [], 'it is offered once');
    assert.equal(pair.state.kind, 'suspecting');
    assert.deepEqual(run(pair, { kind: 'aloneClaimed', outcome: 'won' }), ['goAlone'], 'the whole host stood still');
  }
});

test('a VM that hangs and that nobody else could run is kept, whatever its secondary has become meanwhile', () => {
  const hangs: PrimaryEvent = { kind: 'vmHangs', why: 'no answer' };
  const silence: PrimaryEvent = { kind: 'silence' };
  for (const before of [[], [{ kind: 'captured', epoch: 1 } as const]]) {
    const pair = new PrimaryPair();
    assert.deepEqual(run(pair, ...toInitialCapture, ...before, hangs), []);
    run(pair, silence);
    assert.deepEqual(run(pair, hangs), [], 'this copy may be the last one');
    assert.deepEqual(run(pair, { kind: 'aloneClaimed', outcome: 'won' }), ['goAlone']);
  }
});
