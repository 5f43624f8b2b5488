// A node's status for the API: read from the same records and counters that everything else reads.

import type { CheckpointLine, NodeStatus } from '../api/node-status.ts';
import { reasonOf } from '../api/reasons.ts';
import type { CheckpointRecord } from '../checkpoint/record.ts';
import type { Role } from '../controller/role.ts';
import type { Tolerance } from '../heartbeat/tolerance.ts';
import type { Uplink } from '../netdev/endpoint.ts';
import type { NodeContext } from './context.ts';
import type { PrimaryNode } from './primary/primary.ts';
import type { SecondaryNode } from './secondary/secondary.ts';
import type { Terms } from './terms.ts';
import type { Troubles } from './troubles.ts';

const lastShown = 10;

/** What of a node its status is made of. */
export interface DescribedNode {
  readonly context: NodeContext;
  readonly terms: Pick<Terms, 'record'>;
  readonly role: Role;
  readonly tolerance: Tolerance;
  readonly troubles: Troubles;
  readonly verified: { equal: number; different: number };
  readonly primary: PrimaryNode | undefined;
  readonly secondary: SecondaryNode | undefined;
  readonly uplink: Uplink | undefined;
  readonly failoverRecord: NodeStatus['failover'];
  readonly vmOver: { why: string; byGuest: boolean } | null;
}

/** Where a node stands, for its log: the newest term it has seen, and the epoch it is in as a member of a pair. */
export function termAndEpoch(node: DescribedNode): { term: number; epoch: number } {
  const state = node.primary?.pair.state ?? node.secondary?.pair.state;
  return {
    term: node.terms.record?.term ?? 0,
    epoch: state !== undefined && 'epoch' in state ? state.epoch : 0,
  };
}

export function describeNode(node: DescribedNode, cores: number): NodeStatus {
  const status = statusOf(node, cores);
  return { ...status, reason: reasonOf(status) };
}

function statusOf(node: DescribedNode, cores: number): Omit<NodeStatus, 'reason'> {
  const { config } = node.context;
  const primary = node.primary;
  const state = primary?.pair.state ?? node.secondary?.pair.state;
  const vm = primary?.parts.vm ?? node.secondary?.applier?.vm;
  const uplink = node.uplink?.counters;
  return {
    vm: config.vm,
    node: config.node,
    pid: process.pid,
    qemuPid: vm?.pid ?? null,
    role: roleOf(node),
    state: state === undefined ? (isWaiting(node) ? 'waiting' : 'stopped') : stateText(node, state.kind),
    why: whyOf(node, state),
    nextTryInMs: nextTryInMs(node),
    protected: isProtected(node),
    mode: config.protect.mode,
    ...termAndEpoch(node),
    host: {
      qemu: vm?.qemuVersion ?? '',
      accel: config.machine.accel,
      tracker: vm?.tracker.kind ?? '',
      cores,
      ramBytes: config.machine.ramBytes,
      vcpus: config.machine.vcpus,
    },
    checkpoints: primary === undefined ? null : checkpointsOf(primary),
    released: primary === undefined ? null : releasedOf(primary),
    divergences: primary === undefined ? [] : primary.proxy.divergences(),
    bypass: [...((primary?.proxy ?? node.secondary?.proxy)?.bypassed() ?? [])],
    traffic: {
      ingressFrames: uplink?.framesIn ?? 0,
      ingressBytes: uplink?.bytesIn ?? 0,
      egressFrames: uplink?.framesOut ?? 0,
      egressBytes: uplink?.bytesOut ?? 0,
    },
    proxy: {
      ...(primary?.proxy ?? node.secondary?.proxy)?.counters,
      ...(primary === undefined ? {} : { ingressDropped: primary.ingress.dropped }),
    },
    failover: node.failoverRecord,
    verified: config.protect.verify ? { ...node.verified } : null,
    heartbeat: heartbeatOf(node),
    links: linksOf(node),
    arbiter: arbiterOf(node),
    disks: disksOf(node),
    problems: node.troubles.lines,
    over: node.vmOver,
  };
}

function arbiterOf({ context }: DescribedNode): NonNullable<NodeStatus['arbiter']> | null {
  const { problem } = context.arbiter;
  return problem === undefined ? null : { why: problem.why, forMs: context.clock.now() - problem.since };
}

function linksOf({ primary, secondary }: DescribedNode): NonNullable<NodeStatus['links']> {
  const links = (primary ?? secondary)?.pairing?.links;
  if (links === undefined) return [];
  return (['beat', 'packet', 'bulk'] as const).map((kind) => ({ kind, ...links[kind].ends }));
}

function heartbeatOf({ tolerance, context }: DescribedNode): NonNullable<NodeStatus['heartbeat']> {
  const now = context.clock.now();
  const { wrongSuspicions } = tolerance;
  return { suspectAfterMs: tolerance.timeoutMs(now), largestGapMs: tolerance.largestGapMs(now), wrongSuspicions };
}

/** A primary whose first checkpoint is on its way is not protected yet, whatever its state machine calls it. */
function stateText(node: DescribedNode, kind: string): string {
  return kind === 'protected' && node.primary !== undefined && !isProtected(node) ? 'first checkpoint' : kind;
}

function disksOf(node: DescribedNode): NodeStatus['disks'] {
  const { primary, secondary } = node;
  if (primary?.disks !== undefined) return { ...primary.disks.status, journalBytes: 0 };
  const disks = secondary?.applier?.disks;
  if (disks === undefined) return null;
  const none = { copying: null, backlogBytes: 0, writtenBytes: 0, skippedBytes: 0, problem: '' };
  return { ...none, journalBytes: disks.journalBytes };
}

function roleOf(node: DescribedNode): NodeStatus['role'] {
  const { kind } = node.role.state;
  if (kind === 'primary' || kind === 'secondary') return kind;
  if (isWaiting(node)) return 'secondary';
  return kind === 'clearing' ? 'fenced' : 'stopped';
}

function whyOf(node: DescribedNode, state: { kind: string; why?: string } | undefined): string {
  const role = node.role.state;
  const peer = node.terms.record?.peer ?? 'its peer';
  if (isWaiting(node)) return `waits for ${peer} to take over, or to say that it holds no copy of the VM`;
  if ('why' in role) return role.why;
  return state?.why ?? (isProtected(node) ? '' : (node.primary?.why ?? ''));
}

function nextTryInMs({ primary }: DescribedNode): number | null {
  if (primary?.pair.state.kind !== 'alone' || primary.pairing !== undefined || primary.seeker.waitMs <= 0) return null;
  return Math.ceil(primary.seeker.waitMs);
}

/** The owner of a pair that has started anew: it holds nothing until its peer has taken over or said the same. */
function isWaiting(node: DescribedNode): boolean {
  return node.role.state.kind === 'deciding' && node.terms.record !== undefined;
}

/**
 * Protected is a primary whose secondary has loaded a checkpoint, and a secondary that has: what was never tried may
 * fail.
 */
function isProtected(node: DescribedNode): boolean {
  const primary = node.primary?.pair.state;
  if (primary !== undefined) return primary.kind === 'protected' && primary.loaded;
  const secondary = node.secondary?.pair.state;
  return secondary?.kind === 'protected' && secondary.loaded;
}

function checkpointsOf(primary: PrimaryNode): NodeStatus['checkpoints'] {
  const { records } = primary;
  const kept = records.newest(Number.POSITIVE_INFINITY);
  return {
    count: records.count,
    pauseMs: records.percentiles((record) => record.pauseMs),
    commitMs: records.percentiles((record) => record.commitMs),
    dirtyPages: records.percentiles((record) => record.pages),
    sentBytes: kept.reduce((sum, record) => sum + record.sentBytes, 0),
    dirtyBytes: kept.reduce((sum, record) => sum + record.rawBytes, 0),
    reasons: Object.fromEntries(records.reasons),
    pauseSeconds: records.pauseSeconds.snapshot,
    commitSeconds: records.commitSeconds.snapshot,
    dirtyBytesTotal: records.dirtyBytes,
    sentBytesTotal: records.sentBytes,
    last: records.newest(lastShown).map(lineOf),
  };
}

function lineOf(record: CheckpointRecord): CheckpointLine {
  return {
    epoch: record.epoch,
    reason: record.reason.kind,
    why: record.reason.detail,
    pauseMs: record.pauseMs,
    commitMs: record.commitMs,
    dirtyPages: record.pages,
    sentBytes: record.sentBytes,
    heldFrames: record.heldFrames,
  };
}

function releasedOf(primary: PrimaryNode): NodeStatus['released'] {
  const { counters } = primary.proxy;
  const { p50, p99 } = primary.proxy.holdTimes();
  const { dataByMatch: byMatch, dataByCommit: byCommit, datesTolerated: dates } = counters;
  return { byMatch, byCommit, dates, holdMs: { p50, p99 } };
}
