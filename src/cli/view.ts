// How the command line shows things to people: one block that is redrawn in a terminal, plain lines otherwise.

import type { CheckpointLine, NodeStatus } from '../api/node-status.ts';
import { formatSize } from '../config/size.ts';

/** What a host that is not starved has (src/heartbeat/limits.ts). */
const usualSuspicionMs = 400;

/** A stall of a node's process that is worth an operator's look: beats of its peer waited for so long. */
const noticedStallMs = 250;

/** Where a live view is drawn: standard output. */
export interface Screen {
  isTTY?: boolean;
  columns?: number;
  rows?: number;
  write(text: string): unknown;
}

/** Writes a block over the one before when standard output is a terminal; else one line at most every few seconds. */
export class LiveBlock {
  private lines = 0;
  private saidAt = 0;
  /** For the block: what went through each node in the last second or so. */
  readonly rates: Rates;
  private readonly now: () => number;
  private readonly out: Screen;

  constructor(now: () => number, out: Screen = process.stdout) {
    this.now = now;
    this.out = out;
    this.rates = new Rates(now);
  }

  /** `block`: the whole picture; `line`: the same in one line, for logs. */
  show(block: string[], line: string): void {
    if (this.out.isTTY === true) {
      const up = this.lines > 0 ? `\x1b[${this.lines}A` : '';
      const { columns = 120, rows = 50 } = this.out;
      const seen = block.slice(0, rows - 1).map((text) => `\x1b[2K${text.slice(0, columns - 1)}\n`);
      // What is below is of a block that was longer.
      this.out.write(`${up}${seen.join('')}\x1b[J`);
      this.lines = seen.length;
      return;
    }
    if (this.now() - this.saidAt < 5000) return;
    this.saidAt = this.now();
    this.out.write(`  ${line}\n`);
  }

  /** A line that stays; the block is drawn below it from now on. */
  say(line: string): void {
    this.lines = 0;
    this.out.write(`${line}\n`);
  }
}

type Traffic = NodeStatus['traffic'];

/** What goes through each node per second, over at least a second; nothing until that has been seen. */
export class Rates {
  private readonly marks = new Map<string, { at: number; traffic: Traffic; seen: Traffic | undefined }>();
  private readonly now: () => number;

  constructor(now: () => number) {
    this.now = now;
  }

  of({ vm, node, traffic }: Pick<NodeStatus, 'vm' | 'node' | 'traffic'>): Traffic | undefined {
    const key = `${vm} ${node}`;
    const at = this.now();
    const mark = this.marks.get(key);
    // Counters that fell are those of another process, or of another time as the primary.
    const isOther = mark === undefined || traffic.ingressFrames < mark.traffic.ingressFrames;
    if (isOther || traffic.egressFrames < mark.traffic.egressFrames) {
      this.marks.set(key, { at, traffic, seen: undefined });
      return undefined;
    }
    if (at - mark.at < 1000) return mark.seen;
    const rate = (name: keyof Traffic) => Math.round(((traffic[name] - mark.traffic[name]) * 1000) / (at - mark.at));
    const seen = {
      ingressFrames: rate('ingressFrames'),
      ingressBytes: rate('ingressBytes'),
      egressFrames: rate('egressFrames'),
      egressBytes: rate('egressBytes'),
    };
    this.marks.set(key, { at, traffic, seen });
    return seen;
  }
}

/** VMs with what their nodes say, and the last divergences. */
export function describe(statuses: NodeStatus[]): string[] {
  const lines: string[] = [];
  for (const vm of new Set(statuses.map((one) => one.vm))) {
    const own = statuses.filter((one) => one.vm === vm);
    lines.push(`VM ${vm}  mode ${own[0]?.mode ?? ''}`, ...statusBlock(own));
    for (const divergence of own.flatMap((one) => one.divergences).slice(-5))
      lines.push(
        `  divergence in epoch ${divergence.epoch}: ${divergence.kind} ${divergence.connection} at byte ` +
          `${divergence.offset}`,
        `    primary   ${divergence.primary}`,
        `    secondary ${divergence.secondary}`,
      );
  }
  return lines;
}

/** `rates`: those of the live view, where it is one. */
export function statusBlock(statuses: NodeStatus[], rates?: Rates): string[] {
  const lines: string[] = [];
  for (const status of statuses) {
    const isAlone = status.role === 'primary' && !status.protected;
    const why = status.why === '' || isAlone ? '' : ` (${status.why})`;
    const host =
      status.host.qemu === '' ? '' : `  qemu ${status.host.qemu} ${status.host.accel} ${status.host.tracker}`;
    lines.push(
      `node ${status.node}  ${status.role.padEnd(9)} ${status.state}${why}  term ${status.term}  epoch ` +
        `${status.epoch}${host}`,
    );
    if (isAlone) lines.push(...plightLines(status));
    lines.push(...arbiterLines(status), ...heartbeatLines(status), ...processLines(status));
    for (const problem of status.problems ?? []) lines.push(`  WRONG: ${problem}`);
    if (status.role === 'primary') lines.push(...primaryLines(status), trafficLine(status.traffic, rates?.of(status)));
    if (status.role === 'primary')
      for (const { rule, frames, bytes } of status.bypass)
        lines.push(`  NOT COMPARED by rule: ${rule}  ${frames} frames ${formatSize(bytes)}`);
  }
  const over = statuses.find((one) => one.over !== null && one.over !== undefined)?.over;
  if (over !== null && over !== undefined && !statuses.some(({ role }) => role === 'primary'))
    lines.push(over.byGuest ? 'THE GUEST HAS SWITCHED ITSELF OFF' : `THE VM IS LOST: ${over.why}`);
  else if (statuses.length > 0 && !statuses.some((status) => status.role === 'primary' && status.protected))
    lines.push('NOT PROTECTED: the loss of the primary would lose the VM');
  return lines;
}

export function statusLine(statuses: NodeStatus[]): string {
  const primary = statuses.find((status) => status.role === 'primary');
  if (primary === undefined) return 'no primary';
  const { checkpoints, released } = primary;
  const counts =
    checkpoints === null || checkpoints.count === 0
      ? ''
      : `, ${checkpoints.count} checkpoints, pause p50 ${ms(checkpoints.pauseMs.p50)}`;
  const match = released === null || released.byMatch + released.byCommit === 0 ? '' : `, ${share(released)} by match`;
  return `node ${primary.node} ${primary.state}, term ${primary.term}, epoch ${primary.epoch}${counts}${match}`;
}

/**
 * The one that an operator's wish has brought: it need not bear that name, since one that was due anyway serves as
 * well.
 */
export function newestCheckpoint({ checkpoints }: Pick<NodeStatus, 'checkpoints'>): CheckpointLine | undefined {
  return checkpoints?.last.at(-1);
}

export function checkpointLine(status: Pick<NodeStatus, 'checkpoints'>): string {
  const last = newestCheckpoint(status);
  if (last === undefined) return 'committed';
  const { epoch, pauseMs, commitMs, dirtyPages } = last;
  return `epoch ${epoch} committed: pause ${ms(pauseMs)}, commit ${ms(commitMs)}, ${dirtyPages} dirty pages`;
}

function primaryLines(status: NodeStatus): string[] {
  const { checkpoints, released } = status;
  const lines: string[] = [];
  if (checkpoints !== null && checkpoints.count > 0) {
    const reasons = Object.entries(checkpoints.reasons).map(([reason, count]) => `${reason} ${count}`);
    lines.push(
      `  checkpoints ${checkpoints.count} (${reasons.join(', ')})  pause p50 ` +
        `${ms(checkpoints.pauseMs.p50)} p99 ${ms(checkpoints.pauseMs.p99)}  commit p50 ` +
        `${ms(checkpoints.commitMs.p50)}`,
    );
    for (const last of checkpoints.last.slice(-5))
      lines.push(
        `    epoch ${String(last.epoch).padStart(5)}  ${last.reason.padEnd(11)} pause ` +
          `${ms(last.pauseMs).padStart(8)}  ${String(last.dirtyPages).padStart(6)} pages  ` +
          `${formatSize(last.sentBytes).padStart(8)} sent  ${last.why}`,
      );
  }
  lines.push(...diskLines(status));
  for (const { epoch, kind, connection, offset, primary, secondary } of status.divergences.slice(-3))
    lines.push(
      `    epoch ${String(epoch).padStart(5)}  ${kind} differs at ${offset} of ${connection}: ${primary} | ` +
        `${secondary}`,
    );
  if (released !== null)
    lines.push(
      `  released ${released.byMatch} by match, ${released.byCommit} by commit (${share(released)} by ` +
        `match)  hold p50 ${ms(released.holdMs.p50)} p99 ` +
        `${ms(released.holdMs.p99)}${datesText(released.dates)}`,
    );
  return lines;
}

function datesText(dates: number): string {
  return dates === 0 ? '' : `; ${dates} Date headers differed by a second`;
}

function trafficLine(total: Traffic, rate: Traffic | undefined): string {
  const text = (frames: number, bytes: number, perSecond: string) =>
    `${frames} frames${perSecond} ${formatSize(bytes)}${perSecond}`;
  const pair = (traffic: Traffic, perSecond = '') => [
    text(traffic.ingressFrames, traffic.ingressBytes, perSecond),
    text(traffic.egressFrames, traffic.egressBytes, perSecond),
  ];
  const [into, out] = pair(total);
  if (rate === undefined) return `  in ${into}  out ${out}`;
  const [intoNow, outNow] = pair(rate, '/s');
  return `  in ${intoNow} (${into})  out ${outNow} (${out})`;
}

/** Why there is no secondary, and when the next try is, where that is not at once. */
function plightLines({ why, nextTryInMs }: NodeStatus): string[] {
  const next = typeof nextTryInMs === 'number' ? `next try in ${Math.ceil(nextTryInMs / 1000)} s` : '';
  const text = [why, next].filter((part) => part !== '').join('; ');
  return text === '' ? [] : [`  not protected: ${text}`];
}

function arbiterLines({ arbiter }: NodeStatus): string[] {
  if (arbiter === undefined || arbiter === null) return [];
  return [
    `  NOBODY COULD TAKE OVER: the arbiter has taken no claim for ${(arbiter.forMs / 1000).toFixed(0)} s: ` +
      `${arbiter.why}`,
  ];
}

/** Only what an operator has to know: that a silent host would be noticed later than usual, and why. */
function heartbeatLines({ heartbeat }: NodeStatus): string[] {
  if (heartbeat === undefined) return [];
  const { suspectAfterMs, largestGapMs, wrongSuspicions } = heartbeat;
  if (suspectAfterMs <= usualSuspicionMs && wrongSuspicions === 0) return [];
  const wrong = wrongSuspicions === 0 ? '' : `; wrongly suspected so far: ${wrongSuspicions}`;
  return [
    `  a silent peer is suspected after ${ms(suspectAfterMs)} (answers were up to ${ms(largestGapMs)} late)${wrong}`,
  ];
}

/** What this node's files have lost, and a stall that its peer may have noticed. */
function processLines({ process: own }: NodeStatus): string[] {
  if (own === undefined) return [];
  const lost = own.losses.map(({ path, pieces, bytes, problem }) => {
    const now = problem === '' ? '' : `, and cannot be written: ${problem}`;
    return `  ${path} lacks ${pieces} pieces (${formatSize(bytes)})${now}`;
  });
  const { longest, stalls } = own.loop;
  if (longest === null || longest.ms < noticedStallMs) return lost;
  const at = new Date(longest.at).toISOString();
  return [...lost, `  held up ${stalls} times, at most for ${ms(longest.ms)} (${longest.cause}, ${at})`];
}

function diskLines({ disks }: NodeStatus): string[] {
  if (disks === undefined || disks === null) return [];
  const { copying, backlogBytes, writtenBytes, skippedBytes, problem } = disks;
  const done = copying === null ? 0 : (copying.doneBytes * 100) / Math.max(1, copying.totalBytes);
  const what = copying?.what === 'fold' ? 'writing the overlay into the disk' : 'copying to the secondary';
  return [
    ...(copying === null ? [] : [`  disks: ${what}, ${done.toFixed(0)} %`]),
    ...(copying !== null || writtenBytes === 0
      ? []
      : [`  disks: ${formatSize(writtenBytes)} mirrored, ${formatSize(backlogBytes)} on the way`]),
    ...(skippedBytes === 0
      ? []
      : [`  disks: ${formatSize(skippedBytes)} were not copied again, the secondary had them`]),
    ...(problem === '' ? [] : [`  disks: ${problem}`]),
  ];
}

function share(released: { byMatch: number; byCommit: number }): string {
  const all = released.byMatch + released.byCommit;
  return all === 0 ? '-' : `${((released.byMatch * 100) / all).toFixed(2)} %`;
}

export function ms(value: number): string {
  return `${value < 100 ? value.toFixed(1) : Math.round(value)} ms`;
}

/** Rows under a head, columns as wide as they need to be. */
export function table(head: string[], rows: string[][]): string[] {
  const widths = head.map((title, column) => Math.max(title.length, ...rows.map((row) => (row[column] ?? '').length)));
  const line = (cells: string[]) =>
    cells
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join('  ')
      .trimEnd();
  return [line(head), widths.map((width) => '-'.repeat(width)).join('  '), ...rows.map(line)];
}
