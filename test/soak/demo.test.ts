// The demo as it is, again and again: 20 runs for each fault in colo mode and 5 in remus mode, every one of which must
// hold; about an hour. The last lines are the gaps that clients saw, for docs/reliability.md.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { test } from 'node:test';
import { quantile } from '../../src/base/quantile.ts';
import type { DemoReport } from '../../src/demo/demo.ts';
import { faultKinds } from '../../src/demo/faults.ts';

const program = join(import.meta.dirname, '../../src/cli/main.ts');
const runsOf = { colo: 20, remus: 5 } as const;

function runDemo(mode: string, fault: string): Promise<DemoReport> {
  const args = [program, 'demo', '--json', '--name', 'soak', '--mode', mode, '--fault', fault];
  return new Promise((resolve, reject) => {
    execFile(process.execPath, args, { maxBuffer: 64 * 1024 * 1024 }, (error, stdout, stderr) => {
      if (stdout === '') reject(new Error(stderr, { cause: error }));
      else resolve(JSON.parse(stdout) as DemoReport);
    });
  });
}

for (const mode of ['colo', 'remus'] as const)
  for (const fault of faultKinds)
    test(`${mode}, ${fault}: ${runsOf[mode]} demos in a row hold`, async (context) => {
      const gaps: number[] = [];
      for (let run = 0; run < runsOf[mode]; run += 1) {
        const report = await runDemo(mode, fault);
        assert.deepEqual(report.problems, [], `run ${run}`);
        assert.equal(report.ok, true);
        gaps.push(...report.clients.map((client) => client.gapAfterFaultMsMax));
      }
      gaps.sort((left, right) => left - right);
      const at = (share: number) => quantile(gaps, share);
      context.diagnostic(
        `${mode} ${fault}: longest gap of a client after the fault p50 ${at(0.5)} ms, p99 ${at(0.99)} ms, ` +
          `n ${gaps.length}`,
      );
    });
