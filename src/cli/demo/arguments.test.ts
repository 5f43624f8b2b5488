// Options of `colo demo` that would do nothing are refused, and a report has a place before the demo begins.

import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { ColoError, errorCodes } from '../../base/errors.ts';
import { type DemoWords, refuseContradiction, refuseUnwritable } from './arguments.ts';

const defaults: DemoWords = {
  guest: 'demo',
  accel: 'tcg',
  mode: 'colo',
  fault: 'primary-kill',
  failovers: 1,
  disk: false,
  verify: false,
  tracker: 'auto',
  flush: 'local',
};

test('what goes together is taken', () => {
  const fine: Partial<DemoWords>[] = [
    {},
    { mode: 'none' },
    { fault: 'secondary-kill', mode: 'remus', verify: true },
    { failovers: 3, verify: true },
    { tracker: 'compare', verify: true },
    { disk: true, seed: 7, flush: 'replicated', failovers: 2 },
    { hosts: 3, mode: 'remus' },
    { guest: 'bare', accel: 'kvm', machine: 'microvm', failovers: 2 },
  ];
  for (const words of fine) refuseContradiction({ ...defaults, ...words });
});

test('an option that would do nothing is refused and named', () => {
  const wrong: [Partial<DemoWords>, RegExp][] = [
    [{ failovers: 2, fault: 'none' }, /--failovers .* --fault/],
    [{ failovers: 2, mode: 'none' }, /--failovers .* --mode none/],
    [{ seed: 1 }, /--seed goes with --disk/],
    [{ flush: 'replicated' }, /--flush goes with --disk/],
    [{ hosts: 3, disk: true }, /--hosts and --disk/],
    [{ hosts: 3, fault: 'primary-stop' }, /--hosts .* --fault/],
    [{ hosts: 3, failovers: 2 }, /--hosts .* --failovers/],
    [{ hosts: 3, tracker: 'compare' }, /--tracker .* --hosts/],
    [{ disk: true, tracker: 'compare' }, /--tracker .* --disk/],
    [{ hosts: 3, accel: 'kvm' }, /--accel .* --hosts/],
    [{ disk: true, guest: 'bare' }, /--guest.* --disk/],
    [{ hosts: 3, verify: true }, /--verify .* --hosts/],
  ];
  for (const [words, message] of wrong)
    assert.throws(() => refuseContradiction({ ...defaults, ...words }), { code: errorCodes.input, message });
});

test('a report that could not be written is refused, and one that can leaves no file yet', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'colo-report-'));
  try {
    await refuseUnwritable(undefined);
    await refuseUnwritable(join(folder, 'report.json'));
    assert.deepEqual(readdirSync(folder), []);
    for (const wrong of [folder, join(folder, 'gone', 'report.json')])
      await assert.rejects(
        refuseUnwritable(wrong),
        (error) => error instanceof ColoError && error.code === errorCodes.input && error.message.includes(wrong),
      );
  } finally {
    rmSync(folder, { recursive: true });
  }
});
