// The beat's codec: round trip, and nothing else is a beat.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { beatBytes, encodeBeat, parseBeat } from './message.ts';
import { HeartbeatPrimary } from './primary.ts';
import { HeartbeatSecondary } from './secondary.ts';
import { Tolerance } from './tolerance.ts';

test('a beat arrives as it was sent', () => {
  const beat = { sequence: 0xffffffff, term: 7, sentAt: 123456.789 };
  assert.deepEqual(parseBeat(encodeBeat(beat)), beat);
});

test('other bytes are refused, by the codec and by both sides', () => {
  const refuse = { send: (): void => assert.fail('nothing is sent for a refused message') };
  const primary = new HeartbeatPrimary(refuse, { term: 1, now: 0, tolerance: new Tolerance() });
  const secondary = new HeartbeatSecondary(refuse, { now: 0, tolerance: new Tolerance(), term: 1 });
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 40 }), (bytes) => {
      if (bytes.length !== beatBytes) assert.equal(parseBeat(bytes), undefined);
      assert.equal(primary.receive(1, bytes, 1), false);
      assert.equal(secondary.receive(2, bytes, 1), false);
    }),
  );
  const endless = encodeBeat({ sequence: 1, term: 1, sentAt: Number.POSITIVE_INFINITY });
  assert.equal(parseBeat(endless), undefined);
  assert.equal(primary.lease.valid(1), false);
});
