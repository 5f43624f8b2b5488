// What all nodes said of themselves, judged: what is missing, what will be, and what differs between hosts that have to
// be alike. Pure; node-facts.ts asks.

import type { Finding, NodeFacts } from '../api/doctor.ts';
import { certificateDaysLow, clockLagMsMax, etcdBytesHigh, nodeLagMsMax } from './limits.ts';

/** One node as the asking node has seen it. */
export interface Seen {
  node: string;
  /** undefined: it did not answer, and `why` says what came instead. */
  facts: NodeFacts | undefined;
  why: string;
  /** The asking node's clock when it asked and when it had the answer. */
  askedMs: number;
  answeredMs: number;
  /** The asking node itself. */
  isSelf: boolean;
}

type State = Finding['state'];

export function judge(all: readonly Seen[]): Finding[] {
  return [...all.flatMap(judgeNode), ...differences(all), members(all)];
}

function finding(node: string, what: string, [state, detail]: [State, string], todo: string): Finding {
  return state === 'ok' ? { node, what, state, detail } : { node, what, state, detail, todo };
}

function judgeNode(seen: Seen): Finding[] {
  const { node, facts, why } = seen;
  if (facts === undefined)
    return [finding(node, 'colod', ['missing', why], 'start it (systemctl start colod), and see its journal')];
  return [
    finding(node, 'colod', ['ok', facts.version], ''),
    finding(
      node,
      'QEMU',
      facts.qemu === '' ? ['missing', 'it does not run'] : ['ok', facts.qemu],
      'colo doctor --install on that host',
    ),
    arbiter(node, facts),
    ...facts.members.map((member) => memberOf(node, member)),
    ...facts.bridges.map((one) => bridge(node, one)),
    certificate(node, 'certificate', facts.certificateDays, `colo certificate renew FOLDER ${node}`),
    certificate(
      node,
      'authority',
      facts.authorityDays,
      'make a new authority in time (colo init): every node needs it',
    ),
    ...(seen.isSelf ? [] : [lag(seen), clock(seen, facts)]),
  ];
}

function arbiter(node: string, { arbiter: { ms, why } }: NodeFacts): Finding {
  const told: [State, string] = ms === null ? ['missing', why] : ['ok', `takes claims, ${ms.toFixed(1)} ms`];
  return finding(node, 'arbiter', told, 'nobody could take over: etcdctl endpoint status, and its disks');
}

function memberOf(node: string, { url, ms, version, dbBytes, why }: NodeFacts['members'][number]): Finding {
  const what = `etcd ${url}`;
  if (ms === null) return finding(node, what, ['limited', why], 'start that member, or let this host reach it');
  const size = `${version}, ${ms.toFixed(1)} ms, ${Math.ceil(dbBytes / 2 ** 20)} MiB`;
  const todo = 'compact and defragment it (etcdctl compact, defrag): at its quota it takes nothing more';
  return finding(node, what, [dbBytes > etcdBytesHigh ? 'limited' : 'ok', size], todo);
}

function bridge(node: string, { name, mtu, isUp }: NodeFacts['bridges'][number]): Finding {
  const what = `bridge ${name}`;
  if (mtu === null)
    return finding(node, what, ['missing', 'there is no such bridge'], `ip link add ${name} type bridge`);
  return finding(node, what, isUp ? ['ok', `MTU ${mtu}`] : ['missing', 'it is down'], `ip link set ${name} up`);
}

function certificate(node: string, what: string, days: number, todo: string): Finding {
  const state: State = days < 0 ? 'missing' : days < certificateDaysLow ? 'limited' : 'ok';
  return finding(node, what, [state, days < 0 ? `over for ${-days} days` : `good for ${days} days`], todo);
}

function lag({ node, askedMs, answeredMs, facts }: Seen): Finding {
  const spentMs = Math.max(0, answeredMs - askedMs - longest(facts));
  const todo = 'checkpoints and frames wait for it: put the nodes nearer to each other';
  return finding(node, 'lag', [spentMs > nodeLagMsMax ? 'limited' : 'ok', `${spentMs.toFixed(0)} ms`], todo);
}

/** What the node itself took to find out, as far as it says. */
function longest(facts: NodeFacts | undefined): number {
  return Math.max(facts?.arbiter.ms ?? 0, ...(facts?.members.map(({ ms }) => ms ?? 0) ?? []));
}

/** Its clock was read when it answered: at the earliest when it was asked, at the latest when the answer was here. */
function clock({ node, askedMs, answeredMs }: Seen, { clockMs }: NodeFacts): Finding {
  const offMs = clockMs < askedMs ? clockMs - askedMs : Math.max(0, clockMs - answeredMs);
  const isOff = Math.abs(offMs) > clockLagMsMax;
  const detail = isOff ? `${Math.abs(offMs)} ms ${offMs > 0 ? 'ahead' : 'behind'}` : 'as that of the asking node';
  return finding(
    node,
    'clock',
    [isOff ? 'limited' : 'ok', detail],
    'run chrony on every host: certificates and logs need it',
  );
}

/** What hosts that take each other's VMs must have alike. */
function differences(all: readonly Seen[]): Finding[] {
  const of = (what: string, value: (facts: NodeFacts) => string, state: State, todo: string) => {
    const told = all.flatMap(({ node, facts }) => (facts === undefined ? [] : [{ node, value: value(facts) }]));
    const values = [...new Set(told.map((one) => one.value))];
    const detail = values
      .map(
        (one) =>
          `${one === '' ? 'none' : one} on ${told
            .filter(({ value: is }) => is === one)
            .map(({ node }) => node)
            .join(', ')}`,
      )
      .join('; ');
    return finding('', what, values.length < 2 ? ['ok', detail] : [state, detail], todo);
  };
  const release = ({ qemu }: NodeFacts) => qemu.split('.').slice(0, 2).join('.');
  const mtus = ({ bridges }: NodeFacts) => bridges.map(({ name, mtu }) => `${name} ${mtu ?? 'missing'}`).join(', ');
  return [
    of('version of COLO', ({ version }) => version, 'limited', 'update the others, each drained'),
    of('release of QEMU', release, 'missing', 'give all hosts one release: others protect nothing for each other'),
    of('MTU of bridges', mtus, 'missing', 'the same bridges with one MTU on every host'),
  ];
}

function members(all: readonly Seen[]): Finding {
  const there = all.filter(({ facts }) => facts !== undefined).length;
  const state: State = there >= 3 ? 'ok' : there === 2 ? 'limited' : 'missing';
  const todo = 'three hosts are the least with which a VM is protected again after one has died';
  return finding('', 'nodes', [state, `${there} of ${all.length} answer`], todo);
}
