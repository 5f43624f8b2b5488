// What an operator is told of a VM without a secondary: the reason stays through attempts that fail, until it is
// protected.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Plight } from './unprotected-reason.ts';

const alone = { kind: 'alone', linked: false, waiting: false, peers: ['b'] };

test('a lost secondary, the words that it left with, and what is answered since are told until it is protected again', () => {
  const plight = new Plight();
  assert.equal(plight.text(alone), 'b: is being asked');
  assert.equal(plight.text({ ...alone, peers: [] }), 'no other node is known that could be the secondary');
  plight.refused('b', 'nobody listens');
  assert.equal(plight.text(alone), 'b: nobody listens');
  plight.reached('b');
  assert.equal(plight.text({ ...alone, linked: true }), 'b starts its copy of the machine');
  plight.lost('the peer closed the links');
  assert.equal(plight.text(alone), 'b was lost: the peer closed the links; b: is being asked');

  plight.reached('b');
  plight.said('no room');
  plight.lost('the peer closed the links');
  plight.lost('the peer closed the links');
  assert.equal(plight.text({ ...alone, waiting: true }), 'b was lost: it says: no room');
  plight.reached('b');
  assert.equal(
    plight.text({ ...alone, kind: 'syncing', linked: true }),
    'b was lost: it says: no room; the memory is being copied to b',
  );
  plight.lost('silence');
  assert.equal(plight.text({ ...alone, waiting: true }), 'b was lost: silence', 'words are of one attempt');
  plight.reached('b');
  plight.protectedNow();
  assert.equal(plight.text({ ...alone, kind: 'protected', linked: true }), '');
});

test('a survivor says that it took over, and a long text of a peer is cut', () => {
  const plight = new Plight();
  plight.tookOver('the link was reset');
  plight.refused('b', 'x'.repeat(1000));
  assert.match(plight.text(alone), /^it took over: the link was reset; b: x{200}\.\.\.$/);
});
