// `colo demo`: the main job, shown. The story itself is src/demo/; here it is told.

import { buildBareGuest } from '../../../guest/bare/build.ts';
import { buildGuest } from '../../../guest/build.ts';
import { systemClock } from '../../base/clock.ts';
import { ColoError, errorCodes } from '../../base/errors.ts';
import type { EntranceKind } from '../../demo/clients/entrance.ts';
import { type DemoReport, type DemoView, runDemo } from '../../demo/demo.ts';
import type { FaultKind } from '../../demo/faults.ts';
import { bareDemoGuest, type DemoGuest, type GuestKind, linuxGuest } from '../../demo/guest.ts';
import { probeBareGuest, probeKvm } from '../../host/accelerator.ts';
import { ensurePackages, guestPackages, runtimePackages } from '../../host/packages.ts';
import type { TrackerKind } from '../../qemu/dirty/tracker.ts';
import { interruptSignal } from '../interrupt.ts';
import { LiveBlock, ms } from '../view.ts';
import { writeReport } from './arguments.ts';
import { block, clientTable, line } from './show.ts';

export interface DemoArguments {
  name: string;
  guest: GuestKind;
  accel: 'tcg' | 'kvm';
  machine?: 'pc' | 'q35' | 'microvm';
  mode: 'colo' | 'remus' | 'none';
  fault: FaultKind;
  seconds: number;
  failovers: number;
  hosts?: number;
  verify: boolean;
  tracker: TrackerKind | 'auto';
  clients: EntranceKind | 'auto';
  report: string | undefined;
  json: boolean;
}

/** Runs the demo; 0 only if everything held. */
export async function demo(options: DemoArguments): Promise<number> {
  const { hosts, mode } = options;
  if (hosts === undefined) return demoOfFaults(options);
  if (mode === 'none') throw new ColoError(errorCodes.input, 'several hosts are shown in mode colo or remus');
  return (await import('./hosts.ts')).demoOfHosts({ ...options, hosts, mode });
}

async function demoOfFaults(options: DemoArguments): Promise<number> {
  const clock = systemClock;
  const live = new LiveBlock(() => clock.now());
  const say = (line: string) => {
    if (!options.json) live.say(`- ${line}`);
  };
  const progress = (line: string) => say(line);
  await ensurePackages([...runtimePackages, ...guestPackages], { why: 'run the demo', onProgress: progress });
  const isBare = options.guest === 'bare';
  const guest = isBare ? bareDemoGuest(await buildBareGuest()) : linuxGuest(await buildGuest({ onProgress: progress }));
  if (options.accel === 'kvm') await refuseWithoutKvm(guest);
  const interrupt = interruptSignal();
  const show = (view: DemoView) => {
    if (!options.json) live.show(block(view, live.rates), line(view));
  };
  const type = options.machine === undefined ? {} : { type: options.machine };
  const machine = { accel: options.accel, ...type };
  const report = await runDemo({ ...options, guest, machine, clock, say, show, signal: interrupt });
  const text = await writeReport(report, options.report);
  process.stdout.write(options.json ? text : `${summary(report).join('\n')}\n`);
  return report.ok ? 0 : 1;
}

/** Before a boot that would never end. */
async function refuseWithoutKvm({ kind, boot }: DemoGuest): Promise<void> {
  const kernel = boot.kernel ?? '';
  const { usable, detail } = await (kind === 'bare' ? probeBareGuest(kernel) : probeKvm(kernel));
  if (usable) return;
  throw new ColoError(errorCodes.host, `KVM does not run this guest here: ${detail}`, {
    hint: kind === 'bare' ? 'leave --accel out' : 'leave --accel out, or try --guest bare',
  });
}

function summary(report: DemoReport): string[] {
  return ['', ...clientTable(report.clients), '', ...facts(report), '', ...verdict(report)];
}

function facts(report: DemoReport): string[] {
  const { checkpoints, released, failover, host, entrance } = report;
  const lines = [
    `mode ${report.mode}, fault ${report.fault}; QEMU ${host.qemu} ${host.accel}, tracker ${host.tracker}, ` +
      `${host.cores} cores`,
  ];
  if (entrance.ipv6Refusal !== null) lines.push(`IPv6 was not tried: ${entrance.ipv6Refusal}`);
  if (checkpoints !== null) {
    const reasons = Object.entries(checkpoints.reasons).map(([reason, count]) => `${reason} ${count}`);
    lines.push(
      `checkpoints: ${checkpoints.count} (${reasons.join(', ')}), pause p50 ${ms(checkpoints.pauseMs.p50)} ` +
        `p99 ${ms(checkpoints.pauseMs.p99)}, commit p50 ${ms(checkpoints.commitMs.p50)}, dirty pages p50 ` +
        `${checkpoints.dirtyPages.p50}`,
    );
  }
  if (released !== null) {
    const all = Math.max(1, released.byMatch + released.byCommit);
    lines.push(
      `data frames: ${released.byMatch} released by match, ${released.byCommit} by commit ` +
        `(${((released.byMatch * 100) / all).toFixed(2)} % by match), held p50 ${ms(released.holdMs.p50)} ` +
        `p99 ${ms(released.holdMs.p99)}`,
    );
  }
  if (report.verified !== null) lines.push(`verified after the apply: ${report.verified.equal} checkpoints equal`);
  if (failover !== null)
    lines.push(
      `failover: detected after ${ms(failover.detectMs)}, done ${ms(failover.takeoverMs)} later (${failover.why})`,
    );
  for (const { frames } of report.late)
    lines.push(`late: ${frames} frames that the primary was just writing when it was stopped left when it woke`);
  return lines;
}

function verdict(report: DemoReport): string[] {
  if (!report.ok) return ['FAILED:', ...report.problems.map((problem) => `  ${problem}`)];
  if (report.fault === 'none') return ['Everything held.'];
  return ['Everything held: the same connections, every byte, every reply, and one voice.'];
}
