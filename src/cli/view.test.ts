// The live view: a block over the one before, whole, and what goes through a node per second.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { NodeStatus } from '../api/status.ts';
import { LiveBlock, Rates, statusBlock } from './view.ts';

class Terminal {
  readonly isTTY = true;
  readonly columns = 10;
  readonly rows = 4;
  text = '';

  write(text: string): void {
    this.text += text;
  }
}

test('nothing of a longer block stays below a shorter one, and none is wider or higher than the terminal', () => {
  const terminal = new Terminal();
  const live = new LiveBlock(() => 0, terminal);
  live.show(['one', 'two', 'three', 'four', 'five'], '');
  assert.ok(terminal.text.includes('three') && !terminal.text.includes('four'), 'the fourth row is the cursor');
  terminal.text = '';
  live.show(['a line that is too long'], '');
  assert.equal(terminal.text, '\x1b[3A\x1b[2Ka line th\n\x1b[J');
});

test('a rate is of the last second, and begins anew with another process', () => {
  let now = 0;
  const rates = new Rates(() => now);
  const of = (frames: number) => {
    const traffic = { ingressFrames: frames, ingressBytes: frames * 100, egressFrames: 0, egressBytes: 0 };
    return rates.of({ vm: 'a', node: 'b', traffic });
  };
  assert.equal(of(50), undefined);
  now = 500;
  assert.equal(of(60), undefined);
  now = 2000;
  assert.deepEqual(of(250), { ingressFrames: 100, ingressBytes: 10_000, egressFrames: 0, egressBytes: 0 });
  now = 2500;
  assert.equal(of(900)?.ingressFrames, 100);
  now = 4000;
  assert.equal(of(10), undefined);
});

test('a primary that is not protected says why, and when it tries again', () => {
  const traffic = { ingressFrames: 0, ingressBytes: 0, egressFrames: 0, egressBytes: 0 };
  const host = { qemu: '', accel: 'tcg', tracker: '', cores: 2, ramBytes: 1, vcpus: 1 };
  const status: NodeStatus = {
    ...{ vm: 'web', node: 'a', pid: 1, qemuPid: 2, role: 'primary', state: 'alone', why: 'b was lost: no room' },
    ...{ nextTryInMs: 3100, protected: false, mode: 'colo', term: 3, epoch: 0, host, checkpoints: null },
    ...{ released: null, divergences: [], bypass: [], traffic, proxy: {}, failover: null },
  };
  const lines = (part: Partial<NodeStatus>) => statusBlock([{ ...status, ...part }]);
  assert.equal(lines({})[1], '  not protected: b was lost: no room; next try in 4 s');
  assert.equal(lines({ nextTryInMs: null })[1], '  not protected: b was lost: no room');
  const held = lines({ state: 'protected', why: '', nextTryInMs: null, protected: true });
  assert.equal(held.join('\n').includes('not protected'), false);
});
