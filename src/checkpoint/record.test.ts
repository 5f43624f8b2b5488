// Records: bounded, counted from the beginning, and percentiles that are really among the values.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { recordsMax } from './limits.ts';
import { type CheckpointRecord, percentiles, Records } from './record.ts';

function record(epoch: number): CheckpointRecord {
  return {
    epoch,
    reason: { kind: epoch % 2 === 0 ? 'interval' : 'divergence', detail: '' },
    startedAtMs: epoch,
    phases: { stopMs: 1, saveMs: 1, scanMs: 1, copyMs: 1, resumeMs: 1 },
    pauseMs: epoch,
    pages: 1,
    rawBytes: 4096,
    sentBytes: 100,
    commitMs: 1,
    heldFrames: 0,
    applied: null,
  };
}

test('percentiles are the nearest rank, and zeros of nothing', () => {
  assert.deepEqual(percentiles([]), { count: 0, p50: 0, p99: 0, max: 0 });
  assert.deepEqual(percentiles([3]), { count: 1, p50: 3, p99: 3, max: 3 });
  const hundred = Array.from({ length: 100 }, (_, index) => 100 - index);
  assert.deepEqual(percentiles(hundred), { count: 100, p50: 50, p99: 99, max: 100 });
});

test('the newest records are kept, and all are counted with their reasons', () => {
  const records = new Records();
  for (let epoch = 1; epoch <= recordsMax + 10; epoch += 1) records.add(record(epoch));
  assert.equal(records.count, recordsMax + 10);
  assert.equal(records.reasons.get('divergence'), (recordsMax + 10) / 2);
  assert.deepEqual(
    records.newest(2).map((each) => each.epoch),
    [recordsMax + 9, recordsMax + 10],
  );
  assert.equal(records.percentiles((each) => each.pauseMs).count, recordsMax);
  const phases = { stopMs: 1, rollbackMs: 1, writeMs: 1, loadMs: 1, fixMs: 1, resumeMs: 1 };
  const applied = { epoch: recordsMax, ok: true, verified: null, ownPages: 5, phases };
  assert.equal(records.applied(applied), true);
  assert.equal(records.applied({ ...applied, epoch: 1 }), false);
  assert.deepEqual(
    records.percentiles((each) => each.applied?.ownPages),
    { count: 1, p50: 5, p99: 5, max: 5 },
  );
});
