// The live view: a block over the one before, whole, what goes through a node per second, and what the block says.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { CheckpointLine, NodeStatus } from '../api/node-status.ts';
import { checkpointLine, describe, LiveBlock, Rates, statusBlock, statusLine } from './view.ts';

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

const nothingSaid = { ingressFrames: 0, ingressBytes: 0, egressFrames: 0, egressBytes: 0 };

function nodeStatus(own: Partial<NodeStatus>): NodeStatus {
  return {
    ...{ vm: 'web', node: 'a', pid: 1, qemuPid: 2, role: 'primary', state: 'protected', why: '', protected: true },
    ...{ mode: 'colo', term: 3, epoch: 17 },
    host: { qemu: '7.2.22', accel: 'tcg', tracker: 'userfaultfd', cores: 2, ramBytes: 0, vcpus: 1 },
    ...{
      checkpoints: null,
      released: null,
      divergences: [],
      bypass: [],
      traffic: nothingSaid,
      proxy: {},
      failover: null,
    },
    ...own,
  };
}

function checkpointOf(epoch: number, own: Partial<CheckpointLine>): CheckpointLine {
  const rest = { commitMs: 20, dirtyPages: 800, sentBytes: 3 * 2 ** 20, heldFrames: 0 };
  return { epoch, reason: 'epoch', why: '', pauseMs: 2.5, ...rest, ...own };
}

function protectedPrimary(): NodeStatus {
  const last = [11, 12, 13, 14, 15, 16].map((epoch) => checkpointOf(epoch, { pauseMs: epoch / 2 }));
  const divergence = checkpointOf(17, { reason: 'payload', pauseMs: 123.4, why: '10.0.2.2:5000 at byte 7' });
  return nodeStatus({
    checkpoints: {
      ...{ count: 7, sentBytes: 0, dirtyBytes: 0, last: [...last, divergence] },
      pauseMs: { count: 1, p50: 2.5, p99: 123.4, max: 123.4 },
      commitMs: { count: 1, p50: 20, p99: 30, max: 30 },
      dirtyPages: { count: 1, p50: 800, p99: 900, max: 900 },
      reasons: { epoch: 6, payload: 1 },
    },
    released: { byMatch: 999, byCommit: 1, dates: 0, holdMs: { p50: 0.8, p99: 40 } },
    traffic: { ingressFrames: 10, ingressBytes: 2048, egressFrames: 20, egressBytes: 4096 },
  });
}

test('the status block shows of each node role, state, term and epoch, and of the primary its checkpoints and traffic', () => {
  const lines = statusBlock([
    protectedPrimary(),
    nodeStatus({ node: 'b', role: 'secondary', state: 'running', epoch: 16 }),
  ]);
  assert.equal(lines[0], 'node a  primary   protected  term 3  epoch 17  qemu 7.2.22 tcg userfaultfd');
  assert.equal(lines.at(-1), 'node b  secondary running  term 3  epoch 16  qemu 7.2.22 tcg userfaultfd');
  const says = (text: string) => assert.ok(lines.includes(text), `${text}\n--\n${lines.join('\n')}`);
  says('  checkpoints 7 (epoch 6, payload 1)  pause p50 2.5 ms p99 123 ms  commit p50 20.0 ms');
  says('  released 999 by match, 1 by commit (99.90 % by match)  hold p50 0.8 ms p99 40.0 ms');
  says('  in 10 frames 2K  out 20 frames 4K');
  assert.ok(!lines.some((line) => line.includes('NOT PROTECTED')));
});

test('the last five checkpoints each stand in the block with reason, pause, pages and why', () => {
  const shown = statusBlock([protectedPrimary()]).filter((line) => line.startsWith('    epoch'));
  assert.deepEqual(
    shown.map((line) => /epoch +(\d+) +(\w+) +pause +([\d.]+) ms/.exec(line)?.slice(1)),
    [
      ['13', 'epoch', '6.5'],
      ['14', 'epoch', '7.0'],
      ['15', 'epoch', '7.5'],
      ['16', 'epoch', '8.0'],
      ['17', 'payload', '123'],
    ],
  );
  assert.match(shown.at(-1) ?? '', /800 pages +3M sent +10\.0\.2\.2:5000 at byte 7$/);
});

test('what an operator must see stands out: no protection, no arbiter, what is not compared', () => {
  const alone = nodeStatus({
    ...{ state: 'alone', why: 'the secondary is silent', protected: false },
    arbiter: { why: 'no route', forMs: 12_000 },
    bypass: [{ rule: 'udp port 53', frames: 4, bytes: 1024 }],
  });
  const lines = statusBlock([alone]);
  assert.match(lines[0] ?? '', /^node a {2}primary {3}alone {2}term 3 /);
  assert.equal(lines[1], '  not protected: the secondary is silent');
  assert.ok(lines.includes('  NOBODY COULD TAKE OVER: the arbiter has taken no claim for 12 s: no route'));
  assert.ok(lines.includes('  NOT COMPARED by rule: udp port 53  4 frames 1K'));
  assert.equal(lines.at(-1), 'NOT PROTECTED: the loss of the primary would lose the VM');
});

test('outside a terminal one line says node, state, term, epoch, pause and what left by match', () => {
  assert.equal(
    statusLine([protectedPrimary()]),
    'node a protected, term 3, epoch 17, 7 checkpoints, pause p50 2.5 ms, 99.90 % by match',
  );
  assert.equal(statusLine([nodeStatus({ role: 'secondary' })]), 'no primary');
});

test('status shows each VM with its nodes, and divergences with the bytes of both sides', () => {
  const divergence = {
    epoch: 9,
    time: 1,
    kind: 'payload',
    connection: '10.0.2.2:5000',
    offset: 7,
    primary: '41',
    secondary: '42',
  };
  const other = nodeStatus({ vm: 'mail', node: 'c', mode: 'remus' });
  const lines = describe([nodeStatus({ divergences: [divergence] }), other]);
  assert.equal(lines[0], 'VM web  mode colo');
  const at = lines.indexOf('  divergence in epoch 9: payload 10.0.2.2:5000 at byte 7');
  assert.deepEqual(lines.slice(at + 1, at + 3), ['    primary   41', '    secondary 42']);
  assert.ok(lines.indexOf('VM mail  mode remus') > at);
});

test('a primary that is not protected says why, and when it tries again', () => {
  const status = nodeStatus({ state: 'alone', why: 'b was lost: no room', nextTryInMs: 3100, protected: false });
  const lines = (part: Partial<NodeStatus>) => statusBlock([{ ...status, ...part }]);
  assert.equal(lines({})[1], '  not protected: b was lost: no room; next try in 4 s');
  assert.equal(lines({ nextTryInMs: null })[1], '  not protected: b was lost: no room');
  const held = lines({ state: 'protected', why: '', nextTryInMs: null, protected: true });
  assert.equal(held.join('\n').includes('not protected'), false);
});

test('a checkpoint that was due when its operator asked is told to him like one of his own', () => {
  const one = { why: '', pauseMs: 1, commitMs: 2, dirtyPages: 3, sentBytes: 4, heldFrames: 0 };
  const none = { count: 1, p50: 0, p99: 0, max: 0 };
  const sums = { count: 2, pauseMs: none, commitMs: none, dirtyPages: none, sentBytes: 0, dirtyBytes: 0, reasons: {} };
  const last = [
    { epoch: 4, reason: 'operator', ...one },
    { epoch: 7, reason: 'dirty', ...one },
  ];
  assert.match(checkpointLine({ checkpoints: { ...sums, last } }), /^epoch 7 committed: pause 1.0 ms/);
});

test('what a log lacks and a stall that the peer may have noticed are told; a short one, and nothing lost, are not', () => {
  const at = Date.parse('2026-11-28T12:00:00Z');
  const own = (ms: number, losses: NonNullable<NodeStatus['process']>['losses'] = []) =>
    statusBlock([
      nodeStatus({
        process: { losses, loop: { stalls: 3, longest: { ms, cause: 'apply', at }, newest: [] } },
      }),
    ]).join('\n');
  assert.doesNotMatch(own(120), /held up|lacks/);
  assert.match(own(400), /held up 3 times, at most for 400 ms \(apply, 2026-11-28T12:00:00/);
  const lost = [{ path: '/var/a.log', pieces: 12, bytes: 2048, problem: 'ENOSPC: no space left' }];
  assert.match(own(0, lost), /\/var\/a.log lacks 12 pieces \(2K\w*\), and cannot be written: ENOSPC/);
});
