// What a node becomes when it starts, and after it lost its role: by what it is told, or by the arbiter's record.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Role, type RoleAction, type RoleEvent, type WantedRole } from './role.ts';

const kinds = (actions: RoleAction[]) => actions.map((action) => action.kind);

function run(wanted: WantedRole, ...events: RoleEvent[]): { state: string; actions: string[] } {
  const role = new Role(wanted);
  const actions = [{ kind: 'start' } as const, ...events].flatMap((event) => kinds(role.on(event)));
  return { state: role.state.kind, actions };
}

test('a node that is told its role takes it, and one that cannot be the primary says so', () => {
  const won = { kind: 'claimed', outcome: 'won' } as const;
  assert.deepEqual(run('primary', won), { state: 'primary', actions: ['claimFirst', 'startPrimary'] });
  assert.deepEqual(run('secondary'), { state: 'secondary', actions: ['startSecondary'] });
  for (const outcome of ['lost', 'error'] as const)
    assert.deepEqual(run('primary', { kind: 'claimed', outcome }), {
      state: 'ended',
      actions: ['claimFirst', 'refuse'],
    });
});

test("auto: the arbiter's record decides, and is asked until it answers", () => {
  const roleAt = (standing: 'none' | 'mine' | 'pair' | 'other') =>
    run('auto', { kind: 'seen', standing: 'error' }, { kind: 'seen', standing }).actions;
  assert.deepEqual(roleAt('none'), ['look', 'look', 'claimFirst']);
  assert.deepEqual(roleAt('mine'), ['look', 'look', 'claimFirst']);
  assert.deepEqual(roleAt('pair'), ['look', 'look', 'askPeer']);
  assert.deepEqual(roleAt('other'), ['look', 'look', 'startSecondary']);
});

test('auto: the owner of a pair that starts again waits for its peer, and boots only when that holds nothing', () => {
  const pair = { kind: 'seen', standing: 'pair' } as const;
  const asked = (free: boolean) => ({ kind: 'peerAsked', free }) as const;
  const start = { kind: 'start' } as const;
  const other = { kind: 'seen', standing: 'other' } as const;
  assert.deepEqual(run('auto', pair, asked(false), start, other), {
    state: 'secondary',
    actions: ['look', 'askPeer', 'lookLater', 'look', 'startSecondary'],
  });
  assert.deepEqual(run('auto', pair, asked(false), start, pair, asked(true), { kind: 'claimed', outcome: 'won' }), {
    state: 'primary',
    actions: ['look', 'askPeer', 'lookLater', 'look', 'askPeer', 'claimFirst', 'startPrimary'],
  });
  // The peer won the term at that very moment, with the copy that it was thought not to have.
  assert.equal(run('auto', pair, asked(true), { kind: 'claimed', outcome: 'lost' }).state, 'secondary');
});

test('auto: of two nodes that start a VM together the loser of the first term is the secondary', () => {
  const result = run(
    'auto',
    { kind: 'seen', standing: 'none' },
    { kind: 'claimed', outcome: 'error' },
    { kind: 'claimed', outcome: 'lost' },
  );
  assert.deepEqual(result, { state: 'secondary', actions: ['look', 'claimFirst', 'claimFirst', 'startSecondary'] });
});

test('a node goes round: secondary, primary, fenced, cleared, secondary, as often as it must', () => {
  const other = { kind: 'seen', standing: 'other' } as const;
  const round: RoleEvent[] = [{ kind: 'tookOver' }, { kind: 'fenced', why: 'term lost' }, { kind: 'cleared' }, other];
  const { state, actions } = run('secondary', ...round, ...round, ...round);
  assert.equal(state, 'secondary');
  const each = ['carryOn', 'clear', 'look', 'startSecondary'];
  assert.deepEqual(actions, ['startSecondary', ...each, ...each, ...each]);
});

test('a node whose VM is gone, and whose peer never had a copy, boots the VM anew, whatever it was told to be', () => {
  const ended: RoleEvent[] = [{ kind: 'fenced', why: 'QEMU is gone' }, { kind: 'cleared' }];
  const pair = { kind: 'seen', standing: 'pair' } as const;
  const asked = (free: boolean) => ({ kind: 'peerAsked', free }) as const;
  const won = { kind: 'claimed', outcome: 'won' } as const;
  const begun: [WantedRole, RoleEvent[]][] = [
    ['primary', [won]],
    ['secondary', [{ kind: 'tookOver' }]],
    ['auto', [{ kind: 'seen', standing: 'none' }, won]],
  ];
  for (const [wanted, before] of begun) {
    const waits = [...before, ...ended, pair, asked(false), { kind: 'start' } as const];
    const { state, actions } = run(wanted, ...waits, pair, asked(true), won);
    assert.equal(state, 'primary', wanted);
    const end = ['clear', 'look', 'askPeer', 'lookLater', 'look', 'askPeer', 'claimFirst', 'startPrimary'];
    assert.deepEqual(actions.slice(-end.length), end, wanted);
  }
});

test('a secondary that has the term and no copy any more boots the VM anew: nobody else will run it', () => {
  const mine = { kind: 'seen', standing: 'mine' } as const;
  const lost: RoleEvent[] = [{ kind: 'orphaned', why: 'the SVM ended' }, { kind: 'cleared' }, mine];
  const { state, actions } = run('secondary', ...lost, { kind: 'claimed', outcome: 'won' });
  assert.equal(state, 'primary');
  assert.deepEqual(actions, ['startSecondary', 'clear', 'look', 'claimFirst', 'startPrimary']);
});

test('a fenced node is no secondary before everything of its VM is gone', () => {
  const fenced = run('secondary', { kind: 'tookOver' }, { kind: 'fenced', why: 'term lost' });
  assert.equal(fenced.state, 'clearing');
});

test('whatever happens, the VM is cleared away once when the node ends, and nothing is started after it', () => {
  const event: fc.Arbitrary<RoleEvent> = fc.constantFrom<RoleEvent>(
    { kind: 'seen', standing: 'none' },
    { kind: 'seen', standing: 'other' },
    { kind: 'seen', standing: 'pair' },
    { kind: 'peerAsked', free: true },
    { kind: 'peerAsked', free: false },
    { kind: 'claimed', outcome: 'won' },
    { kind: 'claimed', outcome: 'lost' },
    { kind: 'tookOver' },
    { kind: 'fenced', why: 'x' },
    { kind: 'cleared' },
  );
  const wanted = fc.constantFrom<WantedRole>('primary', 'secondary', 'auto');
  fc.assert(
    fc.property(wanted, fc.array(event), fc.array(event), (role, before, after) => {
      const machine = new Role(role);
      for (const one of [{ kind: 'start' } as const, ...before]) machine.on(one);
      const refused = machine.state.kind === 'ended';
      const ending = kinds(machine.on({ kind: 'stop', why: 'operator' }));
      assert.deepEqual(ending, refused ? [] : ['clear']);
      assert.deepEqual(
        after.flatMap((one) => kinds(machine.on(one))),
        [],
      );
    }),
  );
});
