// What is noted of changed blocks covers every replica that is offered to be kept.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { notedBytesMax } from './limits.ts';
import { Notes } from './notes.ts';

test('a replica that is offered to be kept differs from the disk only in blocks of the note', () => {
  const step = fc.constantFrom('write', 'begin', 'mark', 'apply', 'lose');
  fc.assert(
    fc.property(fc.array(step, { maxLength: 80 }), (list) => {
      const notes = new Notes();
      /** The number of writes before each note began. */
      const begunAt = new Map<string, number>();
      /** The number of writes before the mark at each position. */
      const marks = new Map<number, number>();
      let writes = 0;
      let position = 0;
      for (const kind of list) {
        if (kind === 'write') {
          writes += 1;
          position += 1;
        } else if (kind === 'begin') {
          const name = notes.wanted(writes * notedBytesMax);
          if (name !== undefined) {
            begunAt.set(name, writes);
            notes.begun(name, writes * notedBytesMax);
          }
        } else if (kind === 'mark') {
          marks.set(position, writes);
          notes.marked(position);
        } else if (kind === 'apply') {
          const gone = notes.applied(position);
          assert.notEqual(gone, notes.name ?? 'none');
        } else {
          // The next session: writes that no record names, and positions that go on.
          writes += 3;
          position += 1;
        }
        const { name, since } = notes;
        if (name === undefined || since === undefined) continue;
        for (const [at, written] of marks)
          if (at >= since) assert.ok((begunAt.get(name) ?? Number.POSITIVE_INFINITY) <= written, `mark ${at}, ${name}`);
      }
    }),
    { numRuns: 500 },
  );
});

test('a new note begins when enough was written, and replaces the old one when the secondary has applied behind it', () => {
  const notes = new Notes();
  const first = notes.wanted(0) ?? '';
  notes.begun(first, 0);
  assert.equal(notes.since, undefined, 'no mark, no offer');
  notes.marked(5);
  assert.equal(notes.since, 5);
  assert.equal(notes.wanted(notedBytesMax - 1), undefined);
  const second = notes.wanted(notedBytesMax) ?? '';
  notes.begun(second, notedBytesMax);
  assert.equal(notes.applied(5), undefined);
  notes.marked(9);
  assert.equal(notes.applied(5), undefined, 'the newest that was applied is before the new note');
  assert.equal(notes.applied(9), first);
  assert.deepEqual([notes.name, notes.since], [second, 9]);
  assert.deepEqual(notes.clear(), [second]);
  assert.equal(notes.since, undefined);
});
