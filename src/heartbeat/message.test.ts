// The beat's codec: round trip, and nothing else is a beat.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { beatBytes, encodeBeat, parseBeat } from './message.ts';
import { HeartbeatPrimary } from './primary.ts';
import { HeartbeatSecondary } from './secondary.ts';
import { Tolerance } from './tolerance.ts';

test('a beat arrives as it was sent', () => {
  const beat = { sequence: 0xffffffff, term: 2 ** 32 + 7, sentAt: 123456.789 };
  assert.deepEqual(parseBeat(encodeBeat(beat)), beat);
});

test('beats go on beyond the wrap of their number', () => {
  const sent: Uint8Array[] = [];
  const ports = { send: (_: number, payload: Uint8Array) => void sent.push(payload) };
  const primary = new HeartbeatPrimary(ports, { term: 1, now: 0, tolerance: new Tolerance() });
  Reflect.set(primary, 'sequence', 0xffffffff - 1);
  for (let now = 0; sent.length < 3; now += 10) primary.tick(now);
  assert.deepEqual(
    sent.map((payload) => parseBeat(payload)?.sequence),
    [0xffffffff, 0, 1],
  );
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
