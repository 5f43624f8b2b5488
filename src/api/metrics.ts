// What a node says of its VMs, as Prometheus' metrics: families made from NodeStatus when they are asked for, so that
// metrics and status never tell different stories. Names and units follow Prometheus' conventions; a counter begins
// anew with its role.
//
// No label is on every metric but `vm`; none holds a connection, an address or an offset.

import { Registry } from 'prom-client';
import { type HistogramCounts, secondsBounds } from '../base/histogram.ts';
import type { NodeStatus } from './node-status.ts';
import { reasonCodes } from './reasons.ts';

type Labels = Record<string, string>;
interface Sample {
  labels: Labels;
  value: number;
  metricName?: string;
}

type Kind = 'counter' | 'gauge' | 'histogram';

/** One family: its name without a suffix, what it says, and its samples. */
export interface Family {
  name: string;
  kind: Kind;
  help: string;
  samples: Sample[];
}

/** The text of these families. */
export async function expose(families: readonly Family[]): Promise<string> {
  const registry = new Registry();
  for (const { name, kind, help, samples } of families) {
    if (samples.length === 0) continue;
    const get = async () => ({ name, help, type: kind, values: samples, aggregator: 'sum' });
    registry.registerMetric({ name, get } as never);
  }
  return registry.metrics();
}

/** The metrics of the nodes of one machine, told apart by the label `node`. */
export function exposeNodes(all: readonly NodeStatus[]): Promise<string> {
  const families = vmFamilies([]);
  for (const status of all)
    for (const [at, { samples }] of vmFamilies([status]).entries())
      families[at]?.samples.push(...samples.map((one) => ({ ...one, labels: { node: status.node, ...one.labels } })));
  return expose(families);
}

/** One figure of every VM. */
function each(
  statuses: readonly NodeStatus[],
  [name, kind, help]: [name: string, kind: Kind, help: string],
  samplesOf: (status: NodeStatus) => Sample[] | number | undefined,
): Family {
  const samples = statuses.flatMap((status) => {
    const found = samplesOf(status);
    const all = typeof found === 'number' ? [{ labels: {}, value: found }] : (found ?? []);
    return all.map((sample) => ({ ...sample, labels: { vm: status.vm, ...sample.labels } }));
  });
  return { name, kind, help, samples };
}

const roles = ['primary', 'secondary', 'fenced', 'stopped'] as const;

/** Families of the VMs of one node. */
export function vmFamilies(all: readonly NodeStatus[]): Family[] {
  return [...stateFamilies(all), ...checkpointFamilies(all), ...outputFamilies(all), ...surroundings(all)];
}

function stateFamilies(all: readonly NodeStatus[]): Family[] {
  return [
    each(all, ['colo_vm_info', 'gauge', 'What the VM runs on; always 1.'], ({ mode, host }) => [
      { labels: { mode, accel: host.accel, qemu_version: host.qemu, tracker: host.tracker }, value: 1 },
    ]),
    each(all, ['colo_vm_role', 'gauge', 'What this node is to the VM: 1 for its role.'], ({ role }) =>
      roles.map((one) => ({ labels: { role: one }, value: one === role ? 1 : 0 })),
    ),
    each(all, ['colo_vm_state', 'gauge', 'The state of its half of the pair; always 1.'], ({ state }) => [
      { labels: { state }, value: 1 },
    ]),
    each(all, ['colo_vm_protected', 'gauge', 'Whether the loss of its primary would lose nothing.'], (status) =>
      status.role === 'primary' ? Number(status.protected) : undefined,
    ),
    each(all, ['colo_vm_unprotected_reason', 'gauge', 'Why it is not protected: 1 for the reason.'], (status) =>
      status.role === 'primary' ? reasonSamples(status.reason ?? '') : undefined,
    ),
    each(all, ['colo_vm_term', 'gauge', 'The newest term that this node has seen.'], ({ term }) => term),
    each(all, ['colo_vm_epoch', 'gauge', 'The epoch that this node is in.'], ({ epoch }) => epoch),
  ];
}

function reasonSamples(reason: string): Sample[] {
  const codes = Object.keys(reasonCodes).filter((code) => code !== '');
  return codes.map((code) => ({ labels: { reason: code }, value: code === reason ? 1 : 0 }));
}

function checkpointFamilies(all: readonly NodeStatus[]): Family[] {
  return [
    each(all, ['colo_checkpoints_total', 'counter', 'Committed checkpoints, by why they were taken.'], (status) =>
      Object.entries(status.checkpoints?.reasons ?? {}).map(([reason, value]) => ({ labels: { reason }, value })),
    ),
    each(all, ['colo_checkpoint_pause_seconds', 'histogram', 'How long a checkpoint stopped the guest.'], (status) =>
      buckets('colo_checkpoint_pause_seconds', status.checkpoints?.pauseSeconds),
    ),
    each(all, ['colo_checkpoint_commit_seconds', 'histogram', 'From the stop of the guest to the commit.'], (status) =>
      buckets('colo_checkpoint_commit_seconds', status.checkpoints?.commitSeconds),
    ),
    each(
      all,
      ['colo_checkpoint_dirty_bytes_total', 'counter', 'Memory that checkpoints found written.'],
      (status) => status.checkpoints?.dirtyBytesTotal,
    ),
    each(
      all,
      ['colo_checkpoint_sent_bytes_total', 'counter', 'What checkpoints sent.'],
      (status) => status.checkpoints?.sentBytesTotal,
    ),
  ];
}

function buckets(name: string, counts: HistogramCounts | undefined): Sample[] | undefined {
  if (counts === undefined) return undefined;
  const bounds = [...secondsBounds.map(String), '+Inf'];
  return [
    ...bounds.map((le, at) => ({ labels: { le }, value: counts.buckets[at] ?? 0, metricName: `${name}_bucket` })),
    { labels: {}, value: counts.sum, metricName: `${name}_sum` },
    { labels: {}, value: counts.buckets.at(-1) ?? 0, metricName: `${name}_count` },
  ];
}

function outputFamilies(all: readonly NodeStatus[]): Family[] {
  const causes = { match: 'framesByMatch', commit: 'framesByCommit', alone: 'framesAlone' };
  return [
    each(all, ['colo_released_frames_total', 'counter', 'Frames that left, by what let them.'], ({ proxy }) =>
      Object.entries(causes).flatMap(([cause, key]) => numbers(proxy, key, { cause })),
    ),
    each(all, ['colo_dates_tolerated_total', 'counter', 'Date headers that differed by a second.'], ({ proxy }) =>
      numbers(proxy, 'datesTolerated'),
    ),
    each(all, ['colo_output_held_frames', 'gauge', 'Frames that wait for the secondary.'], ({ role, proxy }) =>
      role === 'primary' ? numbers(proxy, 'heldFrames') : undefined,
    ),
    each(all, ['colo_output_held_bytes', 'gauge', 'Bytes that wait for the secondary.'], ({ role, proxy }) =>
      role === 'primary' ? numbers(proxy, 'heldBytes') : undefined,
    ),
    each(all, ['colo_connections', 'gauge', 'Connections that are compared.'], ({ proxy }) =>
      numbers(proxy, 'connections'),
    ),
    each(all, ['colo_divergences_total', 'counter', 'Answers in which both copies differed.'], ({ proxy }) =>
      counted(proxy['divergences'], 'kind'),
    ),
    each(all, ['colo_dropped_frames_total', 'counter', 'Frames that did not go on, by why.'], ({ proxy }) =>
      counted(proxy['dropped'], 'cause'),
    ),
    each(all, ['colo_network_receive_bytes_total', 'counter', 'From the network.'], (one) => one.traffic.ingressBytes),
    each(
      all,
      ['colo_network_receive_frames_total', 'counter', 'From the network.'],
      (one) => one.traffic.ingressFrames,
    ),
    each(all, ['colo_network_transmit_bytes_total', 'counter', 'To the network.'], (one) => one.traffic.egressBytes),
    each(all, ['colo_network_transmit_frames_total', 'counter', 'To the network.'], (one) => one.traffic.egressFrames),
  ];
}

function numbers(record: Record<string, unknown>, key: string, labels: Labels = {}): Sample[] {
  const value = record[key];
  return typeof value === 'number' ? [{ labels, value }] : [];
}

function counted(record: unknown, label: string): Sample[] {
  if (typeof record !== 'object' || record === null) return [];
  return Object.entries(record).flatMap(([name, value]) =>
    typeof value === 'number' ? [{ labels: { [label]: name }, value }] : [],
  );
}

function surroundings(all: readonly NodeStatus[]): Family[] {
  return [
    each(all, ['colo_arbiter_up', 'gauge', 'Whether the arbiter answers this node.'], ({ arbiter }) =>
      arbiter === undefined ? undefined : Number(arbiter === null),
    ),
    each(all, ['colo_link_up', 'gauge', 'Links to the other node of the pair that stand.'], ({ links }) =>
      (links ?? []).map(({ kind }) => ({ labels: { link: kind }, value: 1 })),
    ),
    each(all, ['colo_peer_suspect_timeout_seconds', 'gauge', 'Silence that raises a suspicion now.'], ({ heartbeat }) =>
      seconds(heartbeat?.suspectAfterMs),
    ),
    each(all, ['colo_peer_largest_gap_seconds', 'gauge', 'The longest silence of the last minute.'], ({ heartbeat }) =>
      seconds(heartbeat?.largestGapMs),
    ),
    each(
      all,
      ['colo_peer_wrong_suspicions_total', 'counter', 'Suspicions of a peer that was there.'],
      (status) => status.heartbeat?.wrongSuspicions,
    ),
    each(
      all,
      ['colo_disk_backlog_bytes', 'gauge', 'Written, and not held by the secondary.'],
      (one) => one.disks?.backlogBytes,
    ),
    each(
      all,
      ['colo_disk_journal_bytes', 'gauge', 'Waits for its checkpoint on the secondary.'],
      (one) => one.disks?.journalBytes,
    ),
    each(all, ['colo_disk_written_bytes_total', 'counter', 'Written by the guest.'], (one) => one.disks?.writtenBytes),
    each(all, ['colo_verify_checks_total', 'counter', 'Checkpoints compared after their apply.'], ({ verified }) =>
      verified === undefined || verified === null ? undefined : verified.equal + verified.different,
    ),
    each(
      all,
      ['colo_verify_mismatches_total', 'counter', 'Of those, the ones that differed.'],
      ({ verified }) => verified?.different,
    ),
    ...processFamilies(all),
  ];
}

function processFamilies(all: readonly NodeStatus[]): Family[] {
  return [
    each(
      all,
      ['colo_loop_stalls_total', 'counter', 'Stalls of the event loop of 100 ms and more.'],
      (one) => one.process?.loop.stalls,
    ),
    each(all, ['colo_loop_longest_stall_seconds', 'gauge', 'The longest of them.'], (one) =>
      one.process === undefined ? undefined : (one.process.loop.longest?.ms ?? 0) / 1000,
    ),
    each(all, ['colo_lost_log_lines_total', 'counter', 'Pieces of logs and consoles that were lost.'], (one) =>
      one.process?.losses.reduce((sum, { pieces }) => sum + pieces, 0),
    ),
  ];
}

function seconds(ms: number | undefined): number | undefined {
  return ms === undefined ? undefined : ms / 1000;
}
