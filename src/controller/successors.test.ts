// Each state machine: the list at the head of its file and its table of successors are the same, edge by edge, and
// the machine can take every edge and no other.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { type PrimaryEvent, PrimaryPair, primarySuccessors } from './primary-pair.ts';
import { Role, type RoleEvent, roleSuccessors, type WantedRole } from './role.ts';
import { type SecondaryEvent, SecondaryPair, secondarySuccessors } from './secondary-pair.ts';

type Edges = Record<string, readonly string[]>;

/** `STATE ─► STATE (why), STATE (why)`, over as many lines as it takes. */
function listed(file: string): Edges {
  const head = readFileSync(new URL(file, import.meta.url), 'utf8').split('\nimport ')[0] ?? '';
  const text = head.replaceAll('\n//                ', '');
  const lines = [...text.matchAll(/^\/\/ {3}(\S+) +─► (.+)$/gm)];
  return Object.fromEntries(
    lines.map(([, from = '', all = '']) => {
      const to = all.replaceAll(/\([^)]*\)/g, '').split(',');
      return [from, to.map((state) => state.trim()).filter((state) => state !== 'nothing')];
    }),
  );
}

interface Machine<E> {
  state: { kind: string };
  on(event: E): unknown;
}

/** Every move that these events can bring about, from every state that they can reach. */
function taken<E>(make: () => Machine<E>, events: readonly E[]): Edges {
  const edges: Record<string, Set<string>> = {};
  const seen = new Set<string>();
  const left = [make().state];
  for (let state = left.pop(); state !== undefined; state = left.pop()) {
    const key = JSON.stringify(state);
    if (seen.has(key)) continue;
    seen.add(key);
    edges[state.kind] ??= new Set();
    for (const event of events) {
      const machine = make();
      machine.state = state;
      machine.on(event);
      if (machine.state === state) continue;
      edges[state.kind]?.add(machine.state.kind);
      left.push(machine.state);
    }
  }
  return Object.fromEntries(Object.entries(edges).map(([from, to]) => [from, [...to]]));
}

const sorted = (edges: Edges) =>
  Object.entries(edges)
    .flatMap(([from, to]) => (to.length === 0 ? [`${from} ─► nothing`] : to.map((one) => `${from} ─► ${one}`)))
    .sort();

const why = 'test';
const outcomes = ['won', 'lost', 'error'] as const;
const epochs = [1, 2];

const primaryEvents: PrimaryEvent[] = [
  { kind: 'peerReady' },
  ...[1, 100_000].map((dirtyPages) => ({ kind: 'roundSent', dirtyPages }) as const),
  ...outcomes.flatMap((outcome) => [
    { kind: 'pairClaimed', outcome } as const,
    { kind: 'aloneClaimed', outcome } as const,
  ]),
  { kind: 'want', reason: { kind: 'payload' } },
  ...epochs.flatMap((epoch) => [
    { kind: 'captured', epoch } as const,
    { kind: 'committed', epoch } as const,
    { kind: 'applied', epoch } as const,
    { kind: 'refused', epoch, why } as const,
  ]),
  { kind: 'captureFailed', why },
  { kind: 'linkLost', why },
  { kind: 'silence' },
  ...[true, false].map((byGuest) => ({ kind: 'vmEnded', why, byGuest }) as const),
  { kind: 'vmHangs', why },
  { kind: 'handover', why },
];

const secondaryEvents: SecondaryEvent[] = [
  { kind: 'session' },
  ...epochs.flatMap((epoch) => [
    { kind: 'staged', epoch } as const,
    { kind: 'applied', epoch } as const,
    { kind: 'applyFailed', epoch, why } as const,
  ]),
  { kind: 'disksFailed', why },
  { kind: 'linkLost', why },
  { kind: 'silence' },
  { kind: 'handover', why },
  { kind: 'guestEnded', why },
  { kind: 'vmEnded', why },
  { kind: 'dismissed', why },
  ...outcomes.map((outcome) => ({ kind: 'aloneClaimed', outcome }) as const),
  { kind: 'tookOver' },
  { kind: 'takeoverFailed', why },
  { kind: 'left' },
];

const roleEvents: RoleEvent[] = [
  { kind: 'start' },
  ...(['none', 'mine', 'pair', 'other', 'error'] as const).map((standing) => ({ kind: 'seen', standing }) as const),
  ...[true, false].map((free) => ({ kind: 'peerAsked', free }) as const),
  ...outcomes.map((outcome) => ({ kind: 'claimed', outcome }) as const),
  { kind: 'tookOver' },
  { kind: 'fenced', why },
  { kind: 'orphaned', why },
  { kind: 'vmOver', why },
  { kind: 'cleared' },
  { kind: 'failed', why },
  { kind: 'stop', why },
];

const roleEdges = (): Edges => {
  const all = (['primary', 'secondary', 'auto'] satisfies WantedRole[]).map((wanted) =>
    taken<RoleEvent>(() => new Role(wanted), roleEvents),
  );
  const states = new Set(all.flatMap((edges) => Object.keys(edges)));
  return Object.fromEntries([...states].map((from) => [from, [...new Set(all.flatMap((edges) => edges[from] ?? []))]]));
};

for (const [file, successors, machine] of [
  ['primary-pair.ts', primarySuccessors, () => taken<PrimaryEvent>(() => new PrimaryPair(), primaryEvents)],
  ['secondary-pair.ts', secondarySuccessors, () => taken<SecondaryEvent>(() => new SecondaryPair(), secondaryEvents)],
  ['role.ts', roleSuccessors, roleEdges],
] as const) {
  test(`the list at the head of ${file} is its table of successors, edge by edge`, () =>
    assert.deepEqual(sorted(listed(file)), sorted(successors)));
  test(`the machine of ${file} can take every edge of its table, and no other`, () =>
    assert.deepEqual(sorted(machine()), sorted(successors)));
}
