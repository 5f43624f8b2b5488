// How much silence is borne: learned, bounded, forgotten.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Detector } from './detector.ts';
import { backWithinMs, toleranceCeilingMs, toleranceFloorMs, toleranceMemoryMs } from './limits.ts';
import { Tolerance } from './tolerance.ts';

test('whatever is seen, the timeout stays between floor and ceiling, and a minute later it is the floor again', () => {
  const gaps = fc.array(fc.record({ gapMs: fc.double({ min: 0, max: 5000, noNaN: true }), passMs: fc.nat(20_000) }));
  fc.assert(
    fc.property(gaps, fc.nat(1_000_000), (seen, start) => {
      const tolerance = new Tolerance();
      let now = start;
      for (const { gapMs, passMs } of seen) {
        now += passMs;
        tolerance.gap(gapMs, now);
        const timeoutMs = tolerance.timeoutMs(now);
        assert.ok(timeoutMs >= toleranceFloorMs && timeoutMs <= toleranceCeilingMs);
        if (gapMs <= toleranceCeilingMs) assert.ok(timeoutMs >= Math.min(gapMs * 2, toleranceCeilingMs));
      }
      assert.equal(tolerance.timeoutMs(now + toleranceMemoryMs), toleranceFloorMs);
    }),
  );
});

test('a gap is remembered for at least 55 seconds', () => {
  fc.assert(
    fc.property(fc.nat(1_000_000), fc.nat(55_000), (at, laterMs) => {
      const tolerance = new Tolerance();
      tolerance.gap(500, at);
      assert.equal(tolerance.timeoutMs(at + laterMs), 1000);
    }),
  );
});

test('a stop, a sleep and a cut cable teach nothing', () => {
  const tolerance = new Tolerance();
  tolerance.gap(toleranceCeilingMs + 1, 10);
  tolerance.gap(Number.NaN, 10);
  assert.equal(tolerance.timeoutMs(10), toleranceFloorMs);
});

test('a peer that is back right after its suspicion was suspected wrongly, and is given twice the time', () => {
  const tolerance = new Tolerance();
  tolerance.suspects('b', 1000);
  tolerance.paired('c', 1500);
  assert.equal(tolerance.wrongSuspicions, 0);
  tolerance.paired('b', 2000);
  assert.equal(tolerance.wrongSuspicions, 1);
  assert.equal(tolerance.timeoutMs(2000), 800);
  tolerance.paired('b', 2500);
  assert.equal(tolerance.wrongSuspicions, 1);
  tolerance.suspects('b', 3000);
  tolerance.paired('b', 4000);
  assert.equal(tolerance.timeoutMs(4000), toleranceCeilingMs);
});

test('a peer that comes back later may have been dead', () => {
  const tolerance = new Tolerance();
  tolerance.suspects('b', 1000);
  tolerance.paired('b', 1001 + backWithinMs);
  assert.equal(tolerance.wrongSuspicions, 0);
  assert.equal(tolerance.timeoutMs(7000), toleranceFloorMs);
});

// A peer that answers every beat, later and later: with a fixed timeout it is suspected at once, with this one only
// when it is more than twice as late as ever before. A peer that falls silent is suspected all the same, by the
// ceiling.
test('a starved peer is borne as long as it gets no more than twice as late, a silent one never for long', () => {
  const lateness = fc.array(fc.integer({ min: 50, max: 700 }), { minLength: 1, maxLength: 60 });
  fc.assert(
    fc.property(lateness, (gaps) => {
      const tolerance = new Tolerance();
      const detector = new Detector({ periodMs: 50, tolerance });
      let now = 0;
      let worst = 0;
      detector.begin(now);
      detector.beat(now);
      for (const wanted of gaps) {
        const gapMs = Math.min(wanted, Math.max(toleranceFloorMs, worst * 2) - 10);
        for (const end = now + gapMs; now < end; now = Math.min(end, now + 10))
          assert.equal(detector.suspects(now), false);
        detector.beat(now);
        worst = Math.max(worst, gapMs);
      }
      const silentFrom = now;
      while (!detector.suspects(now)) now += 10;
      assert.ok(now - silentFrom <= toleranceCeilingMs + 10);
    }),
  );
});
