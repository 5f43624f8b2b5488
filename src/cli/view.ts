// How the command line shows things to people: one block that is redrawn in a terminal, plain lines otherwise.

import type { NodeStatus } from '../api/status.ts';
import { formatSize } from '../config/size.ts';

/** What a host that is not starved has (src/heartbeat/limits.ts). */
const usualSuspicionMs = 400;

/** Writes a block over the one before when standard output is a terminal; else one line at most every few seconds. */
export class LiveBlock {
  private lines = 0;
  private saidAt = 0;
  private readonly terminal: boolean;
  private readonly now: () => number;

  constructor(now: () => number) {
    this.terminal = process.stdout.isTTY === true;
    this.now = now;
  }

  /** `block`: the whole picture; `line`: the same in one line, for logs. */
  show(block: string[], line: string): void {
    if (this.terminal) {
      const up = this.lines > 0 ? `\x1b[${this.lines}A` : '';
      const width = process.stdout.columns ?? 120;
      process.stdout.write(`${up}${block.map((text) => `\x1b[2K${text.slice(0, width - 1)}`).join('\n')}\n`);
      this.lines = block.length;
      return;
    }
    if (this.now() - this.saidAt < 5000) return;
    this.saidAt = this.now();
    process.stdout.write(`  ${line}\n`);
  }

  /** A line that stays; the block is drawn below it from now on. */
  say(line: string): void {
    this.lines = 0;
    process.stdout.write(`${line}\n`);
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
        `  divergence in epoch ${divergence.epoch}: ${divergence.kind} ${divergence.connection} at byte ${divergence.offset}`,
        `    primary   ${divergence.primary}`,
        `    secondary ${divergence.secondary}`,
      );
  }
  return lines;
}

export function statusBlock(statuses: NodeStatus[]): string[] {
  const lines: string[] = [];
  for (const status of statuses) {
    const why = status.why === '' ? '' : ` (${status.why})`;
    const host =
      status.host.qemu === '' ? '' : `  qemu ${status.host.qemu} ${status.host.accel} ${status.host.tracker}`;
    lines.push(
      `node ${status.node}  ${status.role.padEnd(9)} ${status.state}${why}  term ${status.term}  epoch ${status.epoch}${host}`,
    );
    lines.push(...arbiterLines(status), ...heartbeatLines(status));
    if (status.role === 'primary') lines.push(...primaryLines(status));
    if (status.role === 'primary')
      for (const { rule, frames, bytes } of status.bypass)
        lines.push(`  NOT COMPARED by rule: ${rule}  ${frames} frames ${formatSize(bytes)}`);
  }
  if (statuses.length > 0 && !statuses.some((status) => status.role === 'primary' && status.protected))
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

function primaryLines(status: NodeStatus): string[] {
  const { checkpoints, released, traffic } = status;
  const lines: string[] = [];
  if (checkpoints !== null && checkpoints.count > 0) {
    const reasons = Object.entries(checkpoints.reasons).map(([reason, count]) => `${reason} ${count}`);
    lines.push(
      `  checkpoints ${checkpoints.count} (${reasons.join(', ')})  pause p50 ${ms(checkpoints.pauseMs.p50)} p99 ${ms(checkpoints.pauseMs.p99)}  commit p50 ${ms(checkpoints.commitMs.p50)}`,
    );
    for (const last of checkpoints.last.slice(-5))
      lines.push(
        `    epoch ${String(last.epoch).padStart(5)}  ${last.reason.padEnd(11)} pause ${ms(last.pauseMs).padStart(8)}  ${String(last.dirtyPages).padStart(6)} pages  ${formatSize(last.sentBytes).padStart(8)} sent  ${last.why}`,
      );
  }
  lines.push(...diskLines(status));
  for (const { epoch, kind, connection, offset, primary, secondary } of status.divergences.slice(-3))
    lines.push(
      `    epoch ${String(epoch).padStart(5)}  ${kind} differs at ${offset} of ${connection}: ${primary} | ${secondary}`,
    );
  if (released !== null)
    lines.push(
      `  released ${released.byMatch} by match, ${released.byCommit} by commit (${share(released)} by match)  hold p50 ${ms(released.holdMs.p50)} p99 ${ms(released.holdMs.p99)}`,
    );
  lines.push(
    `  in ${traffic.ingressFrames} frames ${formatSize(traffic.ingressBytes)}  out ${traffic.egressFrames} frames ${formatSize(traffic.egressBytes)}`,
  );
  return lines;
}

function arbiterLines({ arbiter }: NodeStatus): string[] {
  if (arbiter === undefined || arbiter === null) return [];
  return [
    `  NOBODY COULD TAKE OVER: no answer of the arbiter for ${(arbiter.forMs / 1000).toFixed(0)} s: ${arbiter.why}`,
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
