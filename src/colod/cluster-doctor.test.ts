// What is said of a cluster by what its nodes said of themselves.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { doctorSchema, type Finding, type NodeFacts } from '../api/doctor.ts';
import { judge, type Seen } from './cluster-doctor.ts';
import { certificateDaysLow, clockLagMsMax, etcdBytesHigh, nodeLagMsMax } from './limits.ts';

const member = { url: 'https://10.0.0.1:2379', ms: 2, version: '3.4.23', dbBytes: 5 * 2 ** 20, why: '' };

function seen(node: string, part: Partial<NodeFacts> = {}, rest: Partial<Seen> = {}): Seen {
  const facts: NodeFacts = {
    ...{
      node,
      clockMs: 1_000_005,
      version: '0.1.0',
      qemu: '7.2.22',
      bridges: [{ name: 'br0', mtu: 1500, isUp: true }],
    },
    ...{ certificateDays: 800, authorityDays: 3600, arbiter: { ms: 3, why: '' }, members: [member], ...part },
  };
  return { node, facts, why: '', askedMs: 1_000_000, answeredMs: 1_000_010, isSelf: node === 'h1', ...rest };
}

/** What is not well, as texts. */
function wrong(...all: Seen[]): string[] {
  const findings: Finding[] = judge(all);
  doctorSchema.parse({ answeredBy: 'h1', findings });
  for (const one of findings) assert.equal(one.todo === undefined, one.state === 'ok', one.what);
  return findings
    .filter(({ state }) => state !== 'ok')
    .map(({ node, what, state, detail }) => `${node} ${what} ${state}: ${detail}`.trim());
}

const [h1, h2, h3] = ['h1', 'h2', 'h3'].map((node) => seen(node)) as [Seen, Seen, Seen];

test('three hosts that are well are well, and everything that was looked at is told', () => {
  assert.deepEqual(wrong(h1, h2, h3), []);
  const what = judge([h1, h2, h3]).map((one) => `${one.node} ${one.what}`.trim());
  for (const one of ['h2 colod', 'h2 QEMU', 'h2 arbiter', `h2 etcd ${member.url}`, 'h2 bridge br0', 'h2 certificate'])
    assert.ok(what.includes(one), one);
  for (const one of [
    'h2 authority',
    'h2 lag',
    'h2 clock',
    'version of COLO',
    'release of QEMU',
    'MTU of bridges',
    'nodes',
  ])
    assert.ok(what.includes(one), one);
  assert.ok(!what.includes('h1 clock'), 'its own is what the others are compared with');
});

test('each thing that is missing or will be is one line that names the host, and what to do', () => {
  const of = (part: Partial<NodeFacts>, rest: Partial<Seen> = {}) => wrong(h1, h2, seen('h3', part, rest));
  assert.deepEqual(of({ arbiter: { ms: null, why: 'space exceeded' } }), ['h3 arbiter missing: space exceeded']);
  assert.deepEqual(of({ members: [member, { ...member, url: 'u', ms: null, why: 'refused' }] }), [
    'h3 etcd u limited: refused',
  ]);
  assert.match(
    of({ members: [{ ...member, dbBytes: etcdBytesHigh + 1 }] }).join(),
    /^h3 etcd \S+ limited: 3\.4\.23, 2\.0 ms, 1537 MiB$/,
  );
  assert.deepEqual(of({ certificateDays: certificateDaysLow - 1 }), ['h3 certificate limited: good for 29 days']);
  assert.deepEqual(of({ authorityDays: -2 }), ['h3 authority missing: over for 2 days']);
  assert.deepEqual(of({ bridges: [{ name: 'br0', mtu: null, isUp: false }] }), [
    'h3 bridge br0 missing: there is no such bridge',
    'MTU of bridges missing: br0 1500 on h1, h2; br0 missing on h3',
  ]);
  assert.deepEqual(of({ bridges: [{ name: 'br0', mtu: 1500, isUp: false }] }), ['h3 bridge br0 missing: it is down']);
  assert.deepEqual(of({ version: '0.2.0' }), ['version of COLO limited: 0.1.0 on h1, h2; 0.2.0 on h3']);
  assert.deepEqual(of({ qemu: '8.0.0' }), ['release of QEMU missing: 7.2 on h1, h2; 8.0 on h3']);
  assert.deepEqual(of({ qemu: '7.2.23' }), []);
  assert.deepEqual(of({}, { facts: undefined, why: 'no answer' }), [
    'h3 colod missing: no answer',
    'nodes limited: 2 of 3 answer',
  ]);
});

test('a clock is off when it was read outside of question and answer, by more than the bound; lag is what the answer took', () => {
  const clock = (clockMs: number) => wrong(h1, h2, seen('h3', { clockMs }));
  assert.deepEqual(clock(1_000_000 - clockLagMsMax), []);
  assert.deepEqual(clock(1_000_010 + clockLagMsMax), []);
  assert.deepEqual(clock(1_000_000 - clockLagMsMax - 1), ['h3 clock limited: 501 ms behind']);
  assert.deepEqual(clock(1_003_010), ['h3 clock limited: 3000 ms ahead']);
  const lag = (answeredMs: number) => wrong(h1, h2, seen('h3', {}, { answeredMs: 1_000_000 + answeredMs }));
  assert.deepEqual(lag(nodeLagMsMax + 3), [], 'what the node itself took is not the network');
  assert.deepEqual(lag(nodeLagMsMax + 10), ['h3 lag limited: 57 ms']);
});
