// Numbers of the packet link: right at every wrap, and a peer's that are none are refused.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ColoError } from '../../base/errors.ts';
import { PrimaryPair } from '../../controller/primary-pair.ts';
import {
  countAt,
  countBytes,
  decodeNumbers,
  egressHeadBytes,
  encodeCount,
  encodeEgressHead,
  encodeMarker,
  encodeNumbers,
  numberAt,
  parseMarker,
} from './message.ts';

const edges = [0, 1, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 32 + 1, Number.MAX_SAFE_INTEGER];

test('an epoch or a position is the same at the other end, beyond 2^32 too', () => {
  fc.assert(
    fc.property(fc.oneof(fc.constantFrom(...edges), fc.maxSafeNat()), fc.nat({ max: 2 ** 32 - 1 }), (count, id) => {
      assert.equal(countAt(encodeCount(count), 0), count);
      const head = encodeEgressHead(count, id);
      assert.deepEqual([head.length, countAt(head, 0), numberAt(head, countBytes)], [egressHeadBytes, count, id]);
      assert.deepEqual(decodeNumbers(encodeNumbers([id, 0])), [id, 0]);
    }),
  );
});

test('a count that nobody reaches is refused, and never sent', () => {
  for (const bytes of [new Uint8Array(8).fill(255), Uint8Array.of(0, 32, 0, 0, 0, 0, 0, 0), new Uint8Array(7)])
    assert.throws(() => countAt(bytes, 0), ColoError);
  for (const count of [-1, 0.5, 2 ** 53]) assert.throws(() => encodeCount(count), /is no count/);
});

test('the commit of checkpoint 2^32 releases', () => {
  const pair = new PrimaryPair();
  const epoch = 2 ** 32;
  pair.state = {
    ...{ kind: 'protected', phase: 'sending', epoch, refusals: 0, complete: true, loaded: true, asked: 0, covered: 0 },
  };
  const actions = pair.on({ kind: 'committed', epoch: countAt(encodeCount(epoch), 0) });
  assert.deepEqual(
    actions.map(({ kind }) => kind),
    ['release'],
  );
});

test('the line of a capture says when it was drawn; what names no moment is a line all the same', () => {
  assert.deepEqual(parseMarker(encodeMarker({ epoch: 2 ** 33, at: 12.5 })), { epoch: 2 ** 33, at: 12.5 });
  assert.deepEqual(parseMarker(encodeCount(7)), { epoch: 7, at: undefined });
  assert.deepEqual(parseMarker(encodeMarker({ epoch: 7, at: Number.NaN })), { epoch: 7, at: undefined });
  assert.throws(() => parseMarker(new Uint8Array(4)), /too short/);
});
