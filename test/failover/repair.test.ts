// Protection that repairs itself: a real guest on two nodes, and its primary's node dies again and again. Every time
// the other node takes over, the dead one is started anew and becomes the secondary by what the arbiter's record says,
// and the VM is protected again without being asked. The clients' connections are those from before the first death.
// A loser of the term whose process lives on comes back by itself: faults.test.ts.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { buildGuest } from '../../guest/build.ts';
import { systemClock } from '../../src/base/clock.ts';
import { type DemoReport, runDemo } from '../../src/demo/demo.ts';
import { linuxGuest } from '../../src/demo/guest.ts';

const failovers = 3;

async function story(mode: 'colo' | 'remus'): Promise<DemoReport> {
  const lines: string[] = [];
  const report = await runDemo({
    ...{ mode, fault: 'primary-kill', failovers, seconds: 6, verify: false, name: 'repair', clock: systemClock },
    guest: linuxGuest(await buildGuest()),
    signal: new AbortController().signal,
    say: (line) => void lines.push(line),
    show: () => undefined,
  });
  assert.deepEqual(report.problems, [], lines.join('\n'));
  return report;
}

for (const mode of ['colo', 'remus'] as const)
  test(`${mode}: three failovers in a row, repaired between them, and no client notices`, async () => {
    const report = await story(mode);
    assert.equal(report.clients.length, report.entrance.ipv6Refusal === null ? 8 : 5);
    for (const client of report.clients) assert.equal(client.connections, 1, client.name);
  });
