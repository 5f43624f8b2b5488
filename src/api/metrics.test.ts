// Metrics in Prometheus' text: one family of each name whoever says it, and nothing of what was not said.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Histogram } from '../base/histogram.ts';
import { exposeNodes } from './metrics.ts';
import type { NodeStatus } from './node-status.ts';
import { reasonOf } from './reasons.ts';

function statusOf(part: Partial<NodeStatus>): NodeStatus {
  return {
    ...{ vm: 'web', node: 'a', pid: 1, qemuPid: 2, role: 'primary', state: 'protected', why: '', reason: '' },
    ...{ protected: true, mode: 'colo', term: 3, epoch: 7, divergences: [], bypass: [], failover: null },
    ...{ released: null, checkpoints: null, proxy: {} },
    host: { qemu: '7.2', accel: 'tcg', tracker: 'compare', cores: 2, ramBytes: 1, vcpus: 1 },
    traffic: { ingressFrames: 1, ingressBytes: 2, egressFrames: 3, egressBytes: 4 },
    ...part,
  };
}

test('both nodes of a pair are told in one family, and what a node does not say is not there', async () => {
  const secondary = statusOf({ node: 'b', role: 'secondary', arbiter: null });
  const text = await exposeNodes([statusOf({}), secondary]);
  assert.equal(text.match(/^# TYPE colo_vm_term gauge$/gm)?.length, 1);
  assert.match(text, /^colo_vm_term\{node="a",vm="web"\} 3$/m);
  assert.match(text, /^colo_vm_term\{node="b",vm="web"\} 3$/m);
  assert.match(text, /^colo_vm_protected\{node="a",vm="web"\} 1$/m);
  assert.doesNotMatch(text, /colo_vm_protected\{[^}]*node="b"/);
  assert.match(text, /^colo_arbiter_up\{node="b",vm="web"\} 1$/m);
  assert.doesNotMatch(text, /colo_arbiter_up\{[^}]*node="a"|undefined|NaN/);
});

test('a histogram counts each figure at its bound and at every greater one', async () => {
  const pause = new Histogram();
  for (const value of [0.0005, 0.004, 0.004, 7]) pause.add(value);
  assert.deepEqual(pause.snapshot.buckets, [1, 1, 1, 3, 3, 3, 3, 3, 3, 3, 3, 4]);
  const few = { count: 1, p50: 0, p99: 0, max: 0 };
  const counts = { count: 4, pauseMs: few, commitMs: few, dirtyPages: few, sentBytes: 0, dirtyBytes: 0 };
  const checkpoints = { ...counts, reasons: { interval: 4 }, last: [], pauseSeconds: pause.snapshot };
  const text = await exposeNodes([statusOf({ checkpoints })]);
  assert.match(text, /^colo_checkpoint_pause_seconds_bucket\{node="a",vm="web",le="0.005"\} 3$/m);
  assert.match(text, /^colo_checkpoint_pause_seconds_bucket\{node="a",vm="web",le="\+Inf"\} 4$/m);
  assert.match(text, /^colo_checkpoint_pause_seconds_count\{node="a",vm="web"\} 4$/m);
  assert.match(text, /^colo_checkpoints_total\{node="a",vm="web",reason="interval"\} 4$/m);
});

test('the reason is the one that is nearest to the cause', () => {
  const lone = { state: 'alone', protected: false };
  const disks = { copying: null, backlogBytes: 0, writtenBytes: 0, skippedBytes: 0, journalBytes: 0, problem: 'full' };
  const cases: [Partial<NodeStatus>, string][] = [
    [{}, ''],
    [{ role: 'secondary', state: 'idle', protected: false }, ''],
    [{ ...lone, mode: 'none' }, 'disabled'],
    [{ arbiter: { why: 'silent', forMs: 1 } }, 'arbiter-unreachable'],
    [{ ...lone }, 'no-secondary'],
    [{ ...lone, disks }, 'disk-problem'],
    [{ state: 'syncing', protected: false, disks }, 'copying'],
    [{ state: 'first checkpoint', protected: false }, 'copying'],
    [{ state: 'suspecting', protected: false }, 'deciding'],
    [{ role: 'stopped', state: 'stopped', protected: false }, 'ended'],
  ];
  for (const [part, reason] of cases) assert.equal(reasonOf(statusOf(part)), reason, JSON.stringify(part));
});
