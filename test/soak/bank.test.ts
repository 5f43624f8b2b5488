// The bank, thirty kills of the primary at random moments, repaired after each: what is checked after each of them is
// in src/demo/bank/rounds.ts. The kills come in guests of ten, in other modes and with another flush rule each; in the
// end of each guest its disk is checked after an orderly shutdown, and a VM started from it has everything.
//
//   COLO_BANK_GUEST=2 ./colo test soak --file bank     only the second guest: a chunk of some eight minutes

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { buildDiskGuest } from '../../guest/disk/build.ts';
import { systemClock } from '../../src/base/clock.ts';
import { runBankDemo } from '../../src/demo/bank/story.ts';

const killsOfGuest = 10;
const guests = [
  { mode: 'colo', flush: 'local' },
  { mode: 'colo', flush: 'replicated' },
  { mode: 'remus', flush: 'local' },
] as const;
const only = process.env['COLO_BANK_GUEST'];

for (const [index, { mode, flush }] of guests.entries()) {
  const number = index + 1;
  const skip = only !== undefined && only !== String(number);
  const what = `guest ${number} (${mode}, ${flush}): ${killsOfGuest} kills, no acknowledged commit lost or doubled`;
  test(what, { skip }, async (context) => {
    const report = await runBankDemo({
      ...{ name: `soak-bank-${number}`, mode, flush, fault: 'primary-kill', failovers: killsOfGuest, seconds: 6 },
      ...{ verify: false, seed: number, reboot: true },
      guest: await buildDiskGuest(),
      clock: systemClock,
      signal: new AbortController().signal,
      say: (line) => context.diagnostic(line),
      show: () => undefined,
    });
    assert.deepEqual(report.problems, []);
    context.diagnostic(`${report.transfers} transfers, ${report.increments} increments of redis`);
  });
}
