// The peer's moments on one's own clock, whatever beats are late.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { peerClockBeats } from './limits.ts';
import { PeerClock } from './peer-clock.ts';

test('a moment is off by no more than what the most punctual of the newest beats was late, and never early', () => {
  const lateness = fc.array(fc.nat(1000), { minLength: 1, maxLength: 2 * peerClockBeats });
  fc.assert(
    fc.property(lateness, fc.integer({ min: -1e9, max: 1e9 }), (lates, difference) => {
      const clock = new PeerClock();
      lates.forEach((late, index) => clock.heard(index * 50, index * 50 + difference + late));
      const least = Math.min(...lates.slice(-peerClockBeats));
      assert.equal(clock.here(12_345), 12_345 + difference + least);
    }),
  );
});

test('before the first beat nothing is known, and a clock that drifts is followed', () => {
  const clock = new PeerClock();
  assert.equal(clock.here(5), undefined);
  clock.heard(0, 100);
  for (let beat = 1; beat <= peerClockBeats; beat++) clock.heard(beat, beat + 130);
  assert.equal(clock.here(5), 135);
});
