// `colo demo --disk`: the story of the bank, told. The story itself is src/demo/bank/story.ts.

import { randomInt } from 'node:crypto';
import { buildDiskGuest } from '../../../guest/disk/build.ts';
import { systemClock } from '../../base/clock.ts';
import { ColoError, errorCodes } from '../../base/errors.ts';
import { type BankReport, runBankDemo } from '../../demo/bank/story.ts';
import type { DemoView } from '../../demo/demo.ts';
import type { FaultKind } from '../../demo/faults.ts';
import { ensurePackages, guestPackages, runtimePackages } from '../../host/packages.ts';
import { interruptSignal } from '../interrupt.ts';
import { LiveBlock, ms, type Rates, statusBlock, statusLine, table } from '../view.ts';
import { writeReport } from './arguments.ts';

export interface BankDemoArguments {
  name: string;
  failovers: number;
  mode: 'colo' | 'remus' | 'none';
  fault: FaultKind;
  seconds: number;
  verify: boolean;
  flush: 'local' | 'replicated';
  seed?: number;
  report: string | undefined;
  json: boolean;
}

/** Runs the demo; 0 only if everything held. */
export async function bankDemo(options: BankDemoArguments): Promise<number> {
  const { mode } = options;
  if (mode === 'none')
    throw new ColoError(errorCodes.input, '--disk shows protection: --mode none protects nothing', {
      hint: 'use --mode colo or --mode remus',
    });
  const clock = systemClock;
  const live = new LiveBlock(() => clock.now());
  const say = (line: string) => {
    if (!options.json) live.say(`- ${line}`);
  };
  await ensurePackages([...runtimePackages, ...guestPackages], { why: 'run the demo', onProgress: say });
  const guest = await buildDiskGuest({ onProgress: say });
  const seed = options.seed ?? randomInt(1, 1_000_000);
  const show = (view: DemoView) => {
    if (!options.json) live.show(block(view, live.rates), line(view));
  };
  const { name, fault, failovers, seconds, verify, flush } = options;
  const report = await runBankDemo({
    ...{ name, mode, fault, failovers, seconds, verify, flush, seed, reboot: true, guest, clock, say, show },
    signal: interruptSignal(),
  });
  const text = await writeReport(report, options.report);
  process.stdout.write(options.json ? text : `${summary(report).join('\n')}\n`);
  return report.ok ? 0 : 1;
}

function block(view: DemoView, rates: Rates): string[] {
  return ['', view.phase, ...statusBlock(view.statuses, rates), `clients: ${clientsOf(view).join('   ')}`];
}

function line(view: DemoView): string {
  return `${statusLine(view.statuses)}; ${clientsOf(view).join(', ') || view.phase}`;
}

function clientsOf(view: DemoView): string[] {
  return view.clients.map((client) => `${client.name} ${client.progress}`);
}

function summary(report: BankReport): string[] {
  const head = ['client', 'result', 'acknowledged', 'gap before', 'gap after', 'latency', 'what it saw'];
  const rows = report.clients.map((client) => [
    client.name,
    client.ok ? 'ok' : 'FAILED',
    String(client.received),
    ms(client.gapBeforeFaultMsMax),
    ms(client.gapAfterFaultMsMax),
    client.latencyMsP50 === null ? '-' : ms(client.latencyMsP50),
    client.detail,
  ]);
  const { checkpoints, failover } = report;
  const what = report.failovers > 1 ? `${report.failovers} kills` : `${report.fault} after ${ms(report.faultAfterMs)}`;
  const facts = [`seed ${report.seed}: ${what}; ${report.transfers} transfers, ${report.increments} increments`];
  if (checkpoints !== null)
    facts.push(
      `checkpoints ${checkpoints.count}, pause p50 ${ms(checkpoints.pauseMs.p50)} max ${ms(checkpoints.pauseMs.max)}`,
    );
  if (failover !== null)
    facts.push(
      `failover: detected after ${ms(failover.detectMs)}, done ${ms(failover.takeoverMs)} later (${failover.why})`,
    );
  const verdict = report.ok
    ? 'Everything held: every acknowledged transfer exactly once, every balance right, the disk clean.'
    : ['FAILED:', ...report.problems.map((problem) => `  ${problem}`)].join('\n');
  return ['', ...table(head, rows), '', ...facts, '', verdict];
}
