// Three hosts as network namespaces: a host that dies, and one whose cable is pulled. Needs root.

import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { test } from 'node:test';
import { buildGuest } from '../../guest/build.ts';
import { systemClock } from '../../src/base/clock.ts';
import { runHostsDemo } from '../../src/demo/hosts.ts';
import { clusterPackages, ensurePackages } from '../../src/host/packages.ts';
import { labRefusal } from '../../src/lab/lab.ts';
import { currentNetwork } from '../../src/lab/vm-nodes.ts';

const refusal = await labRefusal();
const skip = refusal === undefined ? {} : { skip: refusal };

test(
  'three hosts: one dies, one is cut off; no client notices, one voice, and nothing is left behind',
  skip,
  async () => {
    await ensurePackages(clusterPackages, { why: 'test several hosts' });
    const lines: string[] = [];
    const network = currentNetwork();
    const report = await runHostsDemo({
      ...{ name: 'hosts', mode: 'colo', hosts: 3, seconds: 4, clock: systemClock },
      guest: await buildGuest(),
      signal: new AbortController().signal,
      say: (line) => void lines.push(line),
      show: () => undefined,
    });
    assert.deepEqual(report.problems, [], lines.join('\n'));
    // And that these are the owners, in turn, is a promise of the report.
    assert.ok(report.voices.length >= 3);
    assert.equal(currentNetwork(), network);
    assert.deepEqual(
      readdirSync('/run/netns').filter((name) => name.startsWith(`colo-${process.pid}.`)),
      [],
    );
  },
);
